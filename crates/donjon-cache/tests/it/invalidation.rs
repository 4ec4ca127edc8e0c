//! Forgetting.

use donjon_cache::{CacheKey, Invalidate, Refused, Scope};
use donjon_core::{Identity, LlmRequest, Origin};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{SECOND, around, ask, hear, plain, send};

fn asked(model: &str, tenant: &str, tag: &str) -> LlmRequest {
    let identity = Identity::builder().tenant(tenant).tag("team", tag);
    ask("Hi").with_model(model).on_behalf_of(identity.build())
}

#[tokio::test(start_paused = true)]
async fn what_is_named_is_forgotten_and_nothing_else() {
    let all = [
        asked("m1", "a", "x"),
        asked("m2", "a", "y"),
        asked("m1", "b", "x"),
        asked("m2", "b", "y"),
    ];
    let key = CacheKey::of(&all[0], Scope::Tenant);
    for (which, gone) in [
        (Invalidate::Key(key), [true, false, false, false]),
        (Invalidate::model("m1"), [true, false, true, false]),
        (Invalidate::tenant("a"), [true, true, false, false]),
        (Invalidate::tag("team", "y"), [false, true, false, true]),
        (Invalidate::tag("y", "team"), [false; 4]),
        (Invalidate::All, [true; 4]),
    ] {
        let (service, handle) = around(&ScriptedLlm::new("Hello!"), plain());
        for request in &all {
            hear(&service, request.clone()).await;
        }
        let number = gone.iter().filter(|gone| **gone).count();
        assert_eq!(handle.invalidate(which.clone()), number, "{which:?}");
        assert_eq!(usize::try_from(handle.invalidated()), Ok(number));
        for (request, gone) in all.iter().zip(gone) {
            let origin = hear(&service, request.clone()).await.1;
            assert_eq!(origin == Origin::Upstream, gone, "{which:?}");
        }
    }
}

/// An answer that was asked for before belongs to what is forgotten.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_forgotten_too() {
    let model = ScriptedLlm::new(Script::answer("Hello!").head_after(SECOND));
    let (service, handle) = around(&model, plain());
    for (which, kept) in [
        (Invalidate::model("m"), false),
        (Invalidate::model("n"), true),
    ] {
        let call = send(&service, ask("Hi"));
        let invalidate = async {
            tokio::time::sleep(SECOND / 2).await;
            assert_eq!(handle.invalidate(which.clone()), 0);
        };
        let (answer, ()) = tokio::join!(call, invalidate);
        assert!(answer.is_ok());
        assert_eq!(handle.entries() == 1, kept, "{which:?}");
    }
    assert_eq!(handle.refused(Refused::Invalidated), 1);
    // More than are remembered.
    handle.invalidate(Invalidate::All);
    let flood = async {
        tokio::time::sleep(SECOND / 2).await;
        for n in 0..100 {
            handle.invalidate(Invalidate::model(n.to_string()));
        }
    };
    let (answer, ()) = tokio::join!(send(&service, ask("Hi")), flood);
    assert!(answer.is_ok());
    assert_eq!(
        handle.entries(),
        0,
        "nobody knows any more whether it was named"
    );
}
