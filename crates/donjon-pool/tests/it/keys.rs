//! Pools of their own for keys and profiles.

use donjon_core::{ErrorKind, Key, KeyBy, LlmRequest};
use donjon_pool::{Aimd, ConfigError, Gradient, Overflow, PoolLayer, Profile, RejectReason};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, Service};

use crate::{SECOND, around, of_tenant, request, send, sized, slow, spawn};

#[tokio::test(start_paused = true)]
async fn each_key_has_slots_of_its_own() {
    let model = ScriptedLlm::new(Script::hang());
    let builder = sized(1)
        .key_by(KeyBy::Tenant)
        .size_for(|key| (key.to_string() == "big").then_some(3))
        .overflow(Overflow::Reject);
    let (service, handle) = around(&model, builder);
    let mut held = Vec::new();
    for (tenant, size) in [("a", 1), ("b", 1), ("big", 3)] {
        for _ in 0..size {
            held.push(spawn(&service, of_tenant(tenant)).await);
        }
        let refused = send(&service, of_tenant(tenant)).await;
        assert_eq!(refused.expect_err("full").kind(), ErrorKind::QueueFull);
    }
    // Without a tenant they share the one for all.
    held.push(spawn(&service, request()).await);
    assert_eq!(handle.stats_of(&Key::Global).expect("there").in_use, 1);
    assert_eq!(handle.stats_of(&Key::name("big")).expect("there").in_use, 3);
    assert_eq!(handle.stats().in_use, 6);
    assert_eq!(handle.each().len(), 4);
    assert!(handle.stats_of(&Key::name("nobody")).is_none());
}

#[tokio::test(start_paused = true)]
async fn profiles_have_their_size_model_and_parameters() {
    let model = slow(SECOND);
    let by_tag = KeyBy::custom(|request: &LlmRequest| {
        Key::Name(request.identity().project.clone().unwrap_or("main".into()))
    });
    let builder = sized(8)
        .key_by(by_tag)
        .profile(Profile::new("main"))
        .profile(
            Profile::new("creative")
                .size(1)
                .model("poet-1")
                .edit(|chat| chat.temperature = Some(1.2)),
        )
        .profile(Profile::new("mini").aimd(Aimd::new().initial(3)));
    let (service, handle) = around(&model, builder);
    let identity = donjon_core::Identity::builder().project("creative").build();
    let creative = request().on_behalf_of(identity);
    let tasks = [
        spawn(&service, creative.clone()).await,
        spawn(&service, creative).await,
        spawn(&service, request()).await,
    ];
    let size = |name: &str| handle.stats_of(&Key::name(name)).expect("there").size;
    assert_eq!((size("main"), size("creative"), size("mini")), (8, 1, 3));
    assert_eq!(
        handle
            .stats_of(&Key::name("creative"))
            .expect("there")
            .waiting,
        1
    );
    for task in tasks {
        task.await.expect("no panic").expect("served");
    }
    let asked: Vec<_> = model
        .calls()
        .iter()
        .map(|call| {
            let chat = call.request.as_chat().expect("a chat");
            (call.request.model().to_string(), chat.temperature)
        })
        .collect();
    let poet = ("poet-1".to_owned(), Some(1.2));
    assert_eq!(asked, [poet.clone(), ("m".to_owned(), None), poet]);
    // Its size is its own; those without one follow.
    handle.resize(5).expect("sensible");
    assert_eq!((size("creative"), size("mini")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn sizes_can_be_set_while_it_runs() {
    let model = slow(SECOND);
    let (service, handle) = around(&model, sized(1).key_by(KeyBy::Tenant).max_keys(2));
    send(&service, of_tenant("a")).await.expect("served");
    assert_eq!(handle.resize_key(&Key::name("b"), 7), Ok(true));
    handle.resize(4).expect("sensible");
    let size = |name: &str| handle.stats_of(&Key::name(name)).map(|stats| stats.size);
    assert_eq!((size("a"), size("b")), (Some(4), Some(7)));
    for n in 0..100 {
        send(&service, of_tenant(&format!("other-{n}")))
            .await
            .expect("served");
    }
    // What was set by hand is kept; the rest comes and goes.
    assert_eq!(
        (size("a"), size("b"), size("other-99")),
        (None, Some(7), Some(4))
    );
    assert_eq!(
        handle.resize_key(&Key::name("b"), 0),
        Err(ConfigError::Size(0))
    );
}

/// L6: a million keys stay under the bound, and one that is in use is never forgotten.
#[test]
fn a_million_keys_stay_bounded() {
    let layer = sized(1)
        .key_by(KeyBy::Tenant)
        .max_keys(100)
        .overflow(Overflow::Reject)
        .build()
        .expect("sensible");
    let handle = layer.handle();
    let mut service = layer.layer(AtOnce);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let busy = of_tenant("busy");
    let mut held = Box::pin(service.call(busy.clone().with_model("hangs")));
    assert!(held.as_mut().poll(&mut cx).is_pending());
    let template = request();
    for n in 0..1_000_000 {
        let identity = donjon_core::Identity::builder()
            .tenant(n.to_string())
            .build();
        let call = service.call(template.clone().on_behalf_of(identity));
        assert!(std::pin::pin!(call).poll(&mut cx).is_ready());
        if n % 100_000 == 0 {
            assert!(handle.each().len() <= 101);
            let call = service.call(busy.clone());
            let refused = std::pin::pin!(call).poll(&mut cx);
            assert!(
                matches!(refused, std::task::Poll::Ready(Err(_))),
                "it is full"
            );
        }
    }
    assert_eq!(handle.stats_of(&Key::name("busy")).expect("kept").in_use, 1);
}

/// While there is room, no pool that is idle is forgotten and made anew.
#[tokio::test(start_paused = true)]
async fn pools_are_kept_while_there_is_room() {
    let model = ScriptedLlm::new("Hello.");
    let (service, handle) = around(&model, sized(1).key_by(KeyBy::Tenant).max_keys(100));
    for n in 0..1_000 {
        let tenant = (n % 80).to_string();
        send(&service, of_tenant(&tenant)).await.expect("served");
    }
    for n in 0..80 {
        let key = Key::name(n.to_string());
        assert!(handle.stats_of(&key).expect("kept").admitted >= 12);
    }
}

#[tokio::test(start_paused = true)]
async fn when_every_key_is_in_use_another_one_is_refused() {
    let model = ScriptedLlm::new(Script::hang());
    let (service, handle) = around(&model, sized(1).key_by(KeyBy::Tenant).max_keys(2));
    let _held = [
        spawn(&service, of_tenant("a")).await,
        spawn(&service, of_tenant("b")).await,
    ];
    let refused = send(&service, of_tenant("c")).await.expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::QueueFull);
    assert_eq!(handle.stats().rejected(RejectReason::Keys), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |builder: donjon_pool::PoolBuilder| builder.build().expect_err("senseless");
    assert_eq!(refused(sized(0)), ConfigError::Size(0));
    assert_eq!(refused(sized(1).max_keys(0)), ConfigError::ZeroMaxKeys);
    assert_eq!(
        refused(sized(1).ageing(std::time::Duration::ZERO)),
        ConfigError::ZeroAgeing
    );
    assert_eq!(
        refused(sized(1).max_wait(std::time::Duration::ZERO)),
        ConfigError::ZeroMaxWait
    );
    let none = sized(1).overflow(Overflow::Temporary(0));
    assert_eq!(refused(none), ConfigError::ZeroTemporary);
    assert!(matches!(
        refused(sized(1).weight("a", 0)),
        ConfigError::Weight { .. }
    ));
    let profile = || Profile::new("a");
    assert_eq!(
        refused(sized(1).profile(profile())),
        ConfigError::ProfilesWithoutKey
    );
    let twice = sized(1)
        .key_by(KeyBy::Model)
        .profile(profile())
        .profile(profile());
    assert_eq!(refused(twice), ConfigError::SameProfile("a".into()));
    let empty = sized(1).key_by(KeyBy::Model).profile(profile().size(0));
    assert_eq!(refused(empty), ConfigError::Size(0));
    let aimd = PoolLayer::builder().aimd(Aimd::new().initial(0));
    assert!(matches!(refused(aimd), ConfigError::Initial { .. }));
    let gradient = PoolLayer::builder().gradient(Gradient::new().tolerance(f64::NAN));
    assert!(matches!(refused(gradient), ConfigError::Tolerance(_)));
}

/// Answers at once, or never.
#[derive(Clone)]
struct AtOnce;

impl Service<LlmRequest> for AtOnce {
    type Response = donjon_core::LlmResponse;
    type Error = donjon_core::LlmError;
    type Future = futures_util::future::Either<
        std::future::Ready<Result<Self::Response, Self::Error>>,
        std::future::Pending<Result<Self::Response, Self::Error>>,
    >;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        if &**request.model() == "hangs" {
            return futures_util::future::Either::Right(std::future::pending());
        }
        let head = donjon_core::Head::new("m");
        let answer = donjon_core::ChatCompletion::text("m", "hi");
        let answer = donjon_core::LlmResponse::complete(head, answer);
        futures_util::future::Either::Left(std::future::ready(Ok(answer)))
    }
}
