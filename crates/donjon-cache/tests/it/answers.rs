//! Hits, misses, and what a call asks of the cache.

use donjon_cache::Refused;
use donjon_core::{Body, CacheDirective, LlmRequest, Origin, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use std::time::Duration;
use tower::Service;

use crate::{SECOND, around, ask, hear, of_tenant, plain, send};

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_is_not_asked_again() {
    let model = ScriptedLlm::new("Hello there!");
    let (service, handle) = around(&model, plain());
    assert_eq!(
        hear(&service, ask("Hi")).await,
        ("Hello there!".to_owned(), Origin::Upstream)
    );
    assert_eq!(
        hear(&service, ask("Hi")).await,
        ("Hello there!".to_owned(), Origin::Cache)
    );
    assert_eq!(hear(&service, ask("Ho")).await.1, Origin::Upstream);
    assert_eq!(model.count(), 2);
    assert_eq!((handle.hits(), handle.misses(), handle.stored()), (1, 2, 2));
    assert_eq!(handle.entries(), 2);
}

/// A hit needs nothing of the service below, which may be busy for ever.
#[tokio::test(start_paused = true)]
async fn a_hit_readies_nothing() {
    let model = ScriptedLlm::new("Hello!").with_capacity(1);
    let (service, _) = around(&model, plain());
    hear(&service, ask("Hi")).await;
    let polls = model.ready_polls();
    let _blocks = send(&service, ask("held").streamed())
        .await
        .expect("an answer");
    assert_eq!(model.held(), 1, "the only place is taken");
    let before = model.ready_polls();
    assert!(before > polls);
    hear(&service, ask("Hi")).await;
    assert_eq!(model.ready_polls(), before);
}

#[tokio::test(start_paused = true)]
async fn an_answer_grows_old_and_is_asked_for_anew() {
    let model = ScriptedLlm::new("one").then("two");
    let (service, handle) = around(&model, plain());
    let first = hear(&service, ask("Hi")).await.0;
    tokio::time::advance(59 * SECOND).await;
    let answer = send(&service, ask("Hi")).await.expect("an answer");
    assert_eq!((answer.head.origin, answer.head.age), (Origin::Cache, 59));
    tokio::time::advance(SECOND).await;
    let second = hear(&service, ask("Hi")).await;
    assert_ne!(second.0, first);
    assert_eq!(second.1, Origin::Upstream);
    assert_eq!(hear(&service, ask("Hi")).await, (second.0, Origin::Cache));
    assert_eq!(handle.entries(), 1, "the new one took the place of the old");
}

#[tokio::test(start_paused = true)]
async fn tenants_are_apart() {
    let model = ScriptedLlm::new("Hello!");
    let (service, _) = around(&model, plain());
    for (tenant, origin) in [
        ("a", Origin::Upstream),
        ("b", Origin::Upstream),
        ("a", Origin::Cache),
        ("b", Origin::Cache),
    ] {
        let heard = hear(&service, of_tenant(ask("Hi"), tenant)).await;
        assert_eq!(heard.1, origin, "{tenant}");
    }
    assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Upstream);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_refuse_what_is_kept() {
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, plain());
    let directed = |directive: fn(&mut CacheDirective)| -> LlmRequest {
        let mut directives = CacheDirective::default();
        directive(&mut directives);
        let mut request = ask("Hi");
        request.set_cache(directives);
        request
    };
    // What it is answered is nobody else's.
    let no_store = || directed(|it| it.no_store = true);
    assert_eq!(hear(&service, no_store()).await.1, Origin::Upstream);
    assert_eq!(handle.entries(), 0);
    hear(&service, ask("Hi")).await;
    assert_eq!(hear(&service, no_store()).await.1, Origin::Cache);
    tokio::time::advance(10 * SECOND).await;
    let max_age = |age| {
        let mut request = ask("Hi");
        let mut directive = CacheDirective::default();
        directive.max_age = Some(age);
        request.set_cache(directive);
        request
    };
    assert_eq!(hear(&service, max_age(10 * SECOND)).await.1, Origin::Cache);
    assert_eq!(
        hear(&service, max_age(9 * SECOND)).await.1,
        Origin::Upstream
    );
    assert_eq!(
        hear(&service, max_age(Duration::ZERO)).await.1,
        Origin::Cache,
        "just made"
    );
    // It is asked for anew, and kept.
    tokio::time::advance(10 * SECOND).await;
    let no_cache = || directed(|it| it.no_cache = true);
    assert_eq!(hear(&service, no_cache()).await.1, Origin::Upstream);
    let answer = send(&service, ask("Hi")).await.expect("an answer");
    assert_eq!((answer.head.origin, answer.head.age), (Origin::Cache, 0));
}

/// The usage is told again, as it was; that it is billed once is seen to by the origin.
#[tokio::test(start_paused = true)]
async fn the_usage_is_kept() {
    let model = ScriptedLlm::new(Script::answer("Hi!").usage(Usage::new(30, 7)));
    let (service, _) = around(&model, plain());
    hear(&service, ask("Hi")).await;
    let answer = send(&service, ask("Hi")).await.expect("an answer");
    let Body::Complete(completion) = &answer.body else {
        panic!("asked for whole")
    };
    assert_eq!(completion.usage(), Some(&Usage::new(30, 7)));
    assert_eq!(answer.head.origin, Origin::Cache);
}

#[tokio::test(start_paused = true)]
async fn another_caches_answer_is_not_kept() {
    let model = ScriptedLlm::new("Hello!");
    let inner = plain().build().expect("sensible");
    let outer = plain().ttl(SECOND).build().expect("sensible");
    let service = tower::Layer::layer(&outer, tower::Layer::layer(&inner, model.clone()));
    hear(&service, ask("Hi")).await;
    tokio::time::advance(2 * SECOND).await;
    hear(&service, ask("Hi")).await;
    assert_eq!(outer.handle().refused(Refused::Cached), 1);
    assert_eq!((model.count(), outer.handle().stored()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_lets_all_pass() {
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, plain());
    hear(&service, ask("Hi")).await;
    handle.set_enabled(false);
    assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Upstream);
    handle.set_enabled(true);
    assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Cache);
    assert_eq!(handle.bypassed(), 1);
}

/// Whoever asks before the answer is there has part in it, whenever they read it.
#[tokio::test(start_paused = true)]
async fn whoever_asked_before_it_was_answered_shares_the_answer() {
    let model = ScriptedLlm::new("Hello!").then("Not again!");
    let (mut service, handle) = around(&model, plain());
    let (first, second) = (service.call(ask("Hi")), service.call(ask("Hi")));
    let first = first.await.expect("an answer");
    assert_eq!(first.head.origin, Origin::Upstream);
    let second = second.await.expect("an answer");
    assert_eq!(second.head.origin, Origin::Coalesced);
    let texts = (first.text().await, second.text().await);
    assert_eq!(texts.0.expect("whole"), texts.1.expect("whole"));
    assert_eq!(model.count(), 1);
    assert_eq!((handle.misses(), handle.hits()), (2, 0));
}

/// Who will have nothing that was kept does not look again either.
#[tokio::test(start_paused = true)]
async fn whoever_is_late_and_wants_it_new_has_it_new() {
    let model = ScriptedLlm::new("one").then("two");
    let (mut service, handle) = around(&model, plain());
    let first = service.call(ask("Hi"));
    let mut directive = CacheDirective::default();
    directive.no_cache = true;
    let mut anew = ask("Hi");
    anew.set_cache(directive);
    let anew = service.call(anew);
    let first = first.await.expect("an answer");
    let anew = anew.await.expect("an answer");
    assert_eq!(anew.head.origin, Origin::Upstream);
    let texts = (first.text().await, anew.text().await);
    assert_ne!(texts.0.expect("whole"), texts.1.expect("whole"));
    assert_eq!(handle.late_hits(), 0);
}
