//! What was written is read again, and whatever is read does no harm.

use std::time::{Duration, UNIX_EPOCH};

use donjon_core::{Choice, ChoiceDelta, FinishReason, Message, Role, ToolCall};
use proptest::{collection::vec, option, prelude::*};
use serde_json::value::RawValue;

use super::*;

const MILLISECOND: Moment = 1_000_000;
const NOW: Moment = 1 << 60;

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof![
        Just(String::new()),
        "\\PC{0,20}",
        Just("\0\u{1}\"\\\u{2028}🏰".to_owned()),
    ]
    .prop_map(Into::into)
}

fn name() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Arc::from)
}

fn raw() -> impl Strategy<Value = Box<RawValue>> {
    let json = prop_oneof![
        Just("[1,  2]".to_owned()),
        Just("{\"a\": 1.50}".to_owned()),
        Just("\"\\u00e9\"".to_owned()),
    ];
    json.prop_map(|json| RawValue::from_string(json).expect("it is JSON"))
}

fn reason() -> impl Strategy<Value = FinishReason> {
    prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::ToolCalls),
        Just(FinishReason::ContentFilter),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    (any::<u32>(), any::<u32>()).prop_map(|(input, output)| Usage::new(input.into(), output.into()))
}

fn tool_call() -> impl Strategy<Value = ToolCall> {
    let parts = (text(), text(), text(), any::<bool>());
    parts.prop_map(|(id, name, arguments, whole)| match whole {
        true => ToolCall::function(id, name, arguments),
        false => ToolCall::piece(3, arguments),
    })
}

fn chat() -> impl Strategy<Value = Completion> {
    let names = (
        option::of(name()),
        option::of(name()),
        option::of(any::<u32>().prop_map(u64::from)),
    );
    let choice = (
        text(),
        option::of(text()),
        vec(tool_call(), 0..2),
        reason(),
        option::of(raw()),
    );
    (names, vec(choice, 0..3), option::of(usage()), any::<bool>()).prop_map(
        |((id, model, created), choices, usage, wire)| {
            let mut chat = ChatCompletion::text("m", "");
            chat.usage = usage;
            let choices = (0..).zip(choices).map(|(index, parts)| {
                let (content, reasoning, calls, reason, logprobs) = parts;
                let mut message = Message::assistant(&*content);
                message.reasoning = reasoning;
                message.tool_calls = calls;
                let mut choice = Choice::new(index, message, reason);
                choice.logprobs = logprobs;
                choice
            });
            chat.choices = choices.collect();
            // As it comes from a provider: it remembers how its usage was written.
            let json = serde_json::to_vec(&chat).expect("it can be written");
            let mut chat: ChatCompletion = serde_json::from_slice(&json).expect("what was written");
            (chat.id, chat.model, chat.created) = (id, model, created);
            if wire {
                chat.wire = Some(Wire::new(Dialect::Anthropic, "{ \"as\":  \"it came\" }"));
            }
            chat.into()
        },
    )
}

fn embeddings() -> impl Strategy<Value = Completion> {
    let vectors = vec(vec(any::<f32>(), 0..5), 0..4);
    (option::of(name()), option::of(usage()), vectors).prop_map(|(model, usage, vectors)| {
        let mut embeddings = Embeddings::default();
        embeddings.model = model;
        embeddings.usage = usage;
        for (index, vector) in (0..).zip(vectors) {
            embeddings.data.push(Embedding::new(index, vector));
        }
        embeddings.into()
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let delta = (option::of(text()), option::of(text()), option::of(text()));
    let rest = (
        vec(tool_call(), 0..2),
        option::of(reason()),
        option::of(raw()),
        any::<bool>(),
    );
    let made = (any::<u32>(), delta, rest).prop_map(|(index, delta, rest)| {
        let mut choice = ChoiceDelta::default();
        choice.index = index;
        (choice.content, choice.reasoning, choice.refusal) = delta;
        let assistant;
        (
            choice.tool_calls,
            choice.finish_reason,
            choice.logprobs,
            assistant,
        ) = rest;
        choice.role = assistant.then_some(Role::Assistant);
        Chunk::new([choice])
    });
    let named = (
        made,
        option::of(name()),
        option::of(name()),
        option::of(any::<u32>().prop_map(u64::from)),
        any::<bool>(),
    );
    prop_oneof![
        6 => named.prop_map(|(chunk, id, model, created, unknown)| {
            let mut delta = chunk.into_delta();
            (delta.id, delta.model, delta.created, delta.unknown) = (id, model, created, unknown);
            delta.into()
        }),
        1 => usage().prop_map(Chunk::usage),
        1 => text().prop_map(|text| {
            let text = serde_json::to_string(&text).expect("a string");
            let json = format!("{{ \"choices\": [{{\"index\":0, \"delta\":{{\"content\":{text}, \"odd\":[1, 2]}}, \"by\":1}}] }}");
            Chunk::from_openai(json).expect("a chunk")
        }),
    ]
}

fn kept() -> impl Strategy<Value = Kept> {
    let timed = (chunk(), any::<u32>()).prop_map(|(chunk, after)| Timed { chunk, after });
    prop_oneof![
        chat().prop_map(Kept::Whole),
        embeddings().prop_map(Kept::Whole),
        (any::<u32>(), vec(timed, 0..6))
            .prop_map(|(choices, chunks)| Kept::Stream(Recording::new(choices, chunks))),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let whose = (
        option::of(name()),
        option::of(name()),
        vec((name(), name()), 0..3),
    );
    let head = (
        name(),
        option::of(name()),
        prop_oneof![Just(None), Just(Some("openai"))],
    );
    let times = (
        0..1_u64 << 30,
        0..1_u64 << 50,
        0..1_u64 << 50,
        0..1_u64 << 50,
    );
    (whose, head, times, kept()).prop_map(|(whose, head, times, kept)| {
        let mut identity = Identity::default();
        (identity.tenant, identity.user, identity.tags) = whose;
        let (model, id, provider) = head;
        let mut head = Head::new(model);
        head.id = id;
        head.provider = provider.map(Name::new);
        head.target = provider.map(Name::new);
        let made = NOW - times.0 * MILLISECOND;
        let times = Times {
            made,
            fresh: NOW + times.1,
            stale: NOW + times.2,
            on_error: NOW + times.3,
        };
        Entry::new(head, "asked".into(), Arc::new(identity), kept, times)
    })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

proptest! {
    #[test]
    fn what_was_written_is_read_again(entry in entry()) {
        let bytes = write_entry(&entry, NOW, now()).expect("it can be written");
        let read = read_entry(&bytes, NOW, now()).expect("it can be read");
        prop_assert_eq!(format!("{entry:?}"), format!("{read:?}"));
        // And what is not shown by that is the same to the last bit.
        prop_assert_eq!(write_entry(&read, NOW, now()), Some(bytes));
    }

    #[test]
    fn what_is_cut_short_is_not_read(entry in entry(), at: proptest::sample::Index) {
        let bytes = write_entry(&entry, NOW, now()).expect("it can be written");
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(read_entry(&cut, NOW, now()).is_none());
    }

    #[test]
    fn broken_bytes_do_no_harm(entry in entry(), at: proptest::sample::Index, byte: u8) {
        let mut bytes = write_entry(&entry, NOW, now()).expect("it can be written").to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some(read) = read_entry(&bytes.into(), NOW, now()) {
            write_entry(&read, NOW, now());
        }
    }

    #[test]
    fn whatever_bytes_do_no_harm(mut bytes: Vec<u8>, known: bool) {
        if known {
            bytes.splice(..0, MAGIC.iter().copied());
        }
        prop_assert!(read_entry(&bytes.into(), NOW, now()).is_none());
    }
}

/// A length that no memory could hold takes none.
#[test]
fn a_boundless_length_is_not_believed() {
    let mut to = Writer(MAGIC.to_vec());
    (0..4).for_each(|_| to.number(0));
    to.number(u64::MAX);
    assert!(read_entry(&to.0.into(), NOW, now()).is_none());
}

/// The form is what others read: it changes with its version, and not otherwise.
#[test]
fn the_form_is_what_it_was() {
    let times = Times {
        made: NOW - 2_000 * MILLISECOND,
        fresh: NOW,
        stale: NOW,
        on_error: NOW,
    };
    let kept = Kept::Whole(ChatCompletion::text("m", "Hi").into());
    let entry = Entry::new(Head::new("m"), "m".into(), Arc::default(), kept, times);
    let bytes = write_entry(&entry, NOW, now()).expect("it can be written");
    let hash = blake3::hash(&bytes).to_hex();
    assert_eq!((bytes.len(), &hash[..16]), (232, "9083952b429e9609"));
}
