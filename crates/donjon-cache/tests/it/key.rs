//! The key: what changes it and what does not.
//!
//! That no field is forgotten is not tested but proved: the walk of `LlmRequest::canonical` takes each
//! struct apart without `..`, and `json_object!` writes all that it declares, so that a field without a
//! decision, or of a type without a canonical form, does not compile.

use donjon_cache::{CacheKey, Scope};
use donjon_core::{
    CacheDirective, Delivery, Dialect, Embed, EmbedInput, Identity, LlmRequest, Priority, Prompt,
    Wire,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{SECOND, ask, of_tenant};

fn key(request: &LlmRequest) -> CacheKey {
    CacheKey::of(request, Scope::Tenant)
}

fn read(body: &str) -> LlmRequest {
    LlmRequest::from_openai_chat(body.to_owned()).expect("a request")
}

/// Everything that a request can say.
fn full() -> Value {
    json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "Be brief.", "name": "host" },
            { "role": "user", "content": [
                { "type": "text", "text": "What is this?" },
                { "type": "image_url", "image_url": { "url": "data:x", "detail": "low", "odd": 1 } },
                { "type": "input_audio", "input_audio": { "data": "aa", "format": "wav" } },
            ] },
            { "role": "assistant", "content": null, "refusal": "no", "reasoning_content": "hm", "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}", "odd": 2 }, "odd": 3 },
            ] },
            { "role": "tool", "content": "42", "tool_call_id": "c1", "odd": { "b": [1, 2], "a": null } },
        ],
        "tools": [{ "type": "function", "odd": 4, "function": {
            "name": "f", "description": "d", "strict": true, "odd": 5,
            "parameters": { "type": "object", "properties": { "a": { "type": "number", "minimum": 0.5 } } },
        } }],
        "tool_choice": { "type": "function", "function": { "name": "f" } },
        "parallel_tool_calls": false,
        "max_tokens": 10,
        "max_completion_tokens": 11,
        "temperature": 0.25,
        "top_p": 0.5,
        "n": 2,
        "stop": ["a", "b"],
        "seed": 7,
        "response_format": { "type": "json_schema", "json_schema": { "name": "s" } },
        "reasoning_effort": "low",
        "logit_bias": { "50256": -100, "1": 2 },
        "user": "u",
        "top_k": 5,
    })
}

/// Every place of a value, as a path.
fn places(value: &Value, path: String, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                places(value, format!("{path}/{name}"), all);
            }
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                places(value, format!("{path}/{at}"), all);
            }
        }
        _ => {}
    }
    all.push(path);
}

/// The value changed as little as possible.
fn change(value: &mut Value) {
    *value = match value.take() {
        Value::Null => json!("something"),
        Value::Bool(is) => json!(!is),
        Value::Number(number) if number.is_f64() => {
            json!(number.as_f64().expect("a number") + 0.125)
        }
        Value::Number(number) => json!(number.as_i64().expect("a number") + 1),
        Value::String(text) => json!(text + "x"),
        Value::Array(mut values) => {
            values.reverse();
            if values.len() < 2 {
                values.extend(values.clone());
            }
            json!(values)
        }
        Value::Object(mut members) => {
            members.insert("new".to_owned(), json!(1));
            Value::Object(members)
        }
    };
}

#[test]
fn every_change_of_every_value_changes_the_key() {
    let full = full();
    let whole = key(&read(&full.to_string()));
    let mut all = Vec::new();
    places(&full, String::new(), &mut all);
    assert!(all.len() > 80, "{}", all.len());
    let mut keys = vec![(whole, "nothing".to_owned())];
    for path in all {
        let mut other = full.clone();
        change(other.pointer_mut(&path).expect("a place"));
        // What makes it no request is no question.
        if let Ok(request) = LlmRequest::from_openai_chat(other.to_string()) {
            keys.push((key(&request), format!("a change of {path}")));
        }
        // And so does its absence.
        if let Some((parent, name)) = path.rsplit_once('/') {
            let mut other = full.clone();
            match other.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(name)),
                Some(Value::Array(values)) => drop(values.remove(name.parse().expect("a place"))),
                _ => unreachable!("a parent"),
            }
            // An empty list of tools or calls is as if there were none.
            let emptied = other.pointer(parent).is_some_and(|list| list == &json!([]));
            let nothing = emptied
                || full.pointer(&path).is_some_and(Value::is_null) && path.ends_with("content");
            if let Ok(request) = LlmRequest::from_openai_chat(other.to_string())
                && !nothing
            {
                keys.push((key(&request), format!("the lack of {path}")));
            }
        }
    }
    assert!(keys.len() > 150, "{}", keys.len());
    keys.sort();
    for two in keys.windows(2) {
        assert_ne!(two[0].0, two[1].0, "{} is as {}", two[0].1, two[1].1);
    }
}

/// A JSON text of the same value, its members in another order, white space anywhere.
fn otherwise(value: &Value, random: &mut impl FnMut(usize) -> usize) -> String {
    let space = [" ", "", "\n\t", "  "][random(4)];
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            for at in (1..members.len()).rev() {
                members.swap(at, random(at + 1));
            }
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| {
                    format!("{space}{}{space}:{}", json!(name), otherwise(value, random))
                })
                .collect();
            format!("{space}{{{}{space}}}{space}", members.join(","))
        }
        Value::Array(values) => {
            let values: Vec<_> = values
                .iter()
                .map(|value| otherwise(value, random))
                .collect();
            format!("[{}]{space}", values.join(","))
        }
        Value::String(text)
            if random(2) == 0 && text.chars().all(|c| c.is_ascii_alphanumeric()) =>
        {
            let escaped: String = text
                .chars()
                .map(|c| format!("\\u{:04x}", u32::from(c)))
                .collect();
            format!("\"{escaped}\"")
        }
        Value::Number(number) if number.is_i64() && random(2) == 0 => {
            let number = number.as_i64().expect("a number");
            format!("{space}{number}")
        }
        other => format!("{space}{other}{space}"),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        "[a-c\"\\\\\u{e9} ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]{1,2}", inner, 0..4)
                .prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

proptest! {
    #[test]
    fn order_and_white_space_change_nothing(extra in any_json(), seed in any::<u64>()) {
        let mut body = full();
        body["extra"] = extra.clone();
        body["tool_choice"]["extra"] = extra.clone();
        body["messages"][0]["extra"] = extra;
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).expect("31 bits") % below
        };
        let other = otherwise(&body, &mut random);
        prop_assert_eq!(key(&read(&other)), key(&read(&body.to_string())), "{}", other);
    }

    #[test]
    fn different_values_have_different_keys(one in any_json(), other in any_json(), place in 0..3_usize) {
        let with = |extra: &Value| {
            let mut body = full();
            match place {
                0 => body["extra"] = extra.clone(),
                1 => body["messages"][0]["extra"] = extra.clone(),
                _ => body["response_format"]["extra"] = extra.clone(),
            }
            key(&read(&body.to_string()))
        };
        prop_assert_eq!(with(&one) == with(&other), one == other);
    }

    /// No text that is moved from one message into its neighbour gives the same.
    #[test]
    fn texts_do_not_run_together(text in "[a-c\u{0}s.]{2,40}", at in 1..39_usize, other in 1..39_usize) {
        let split = |at: usize| {
            let (one, two) = text.split_at(at.min(text.len() - 1));
            key(&LlmRequest::chat("m", [donjon_core::Message::user(one), donjon_core::Message::user(two)]))
        };
        let same = at.min(text.len() - 1) == other.min(text.len() - 1);
        prop_assert_eq!(split(at) == split(other), same);
    }
}

#[test]
fn numbers_are_their_value() {
    let with = |number: &str| {
        let body = r#"{"model":"m","messages":[],"temperature":0,"top_k":#,"bias":{"1":#}}"#;
        key(&read(&body.replace('#', number)))
    };
    assert_eq!(with("1"), with("1.0"));
    assert_eq!(with("100"), with("1e2"));
    assert_ne!(with("1"), with("1.1"));
    // Not even where a computer's own numbers are.
    assert_ne!(with("18446744073709551616"), with("18446744073709551617"));
}

#[test]
fn what_is_null_is_as_if_absent_but_not_within_a_value() {
    let with = |rest: &str| key(&read(&format!(r#"{{"model":"m","messages":[]{rest}}}"#)));
    assert_eq!(
        with(""),
        with(r#","user":null,"temperature":null,"tools":[]"#)
    );
    assert_ne!(with(r#","x":{"a":null}"#), with(r#","x":{}"#));
}

#[test]
fn delivery_and_the_call_are_not_in_it() {
    let request = ask("Hi");
    let mut other = ask("Hi")
        .streamed()
        .with_timeout(SECOND)
        .with_priority(Priority::BATCH);
    assert_eq!(key(&request), key(&other));
    other.delivery = Delivery::Stream { usage: false };
    let mut directive = CacheDirective::default();
    directive.no_store = true;
    other.set_cache(directive);
    other.call.begin();
    assert_eq!(key(&request), key(&other));
    let streamed = r#"{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true,"x":1}}"#;
    assert_eq!(
        key(&read(streamed)),
        key(&read(r#"{"model":"m","messages":[]}"#))
    );
}

#[test]
fn the_model_that_is_asked_is_in_it() {
    assert_ne!(key(&ask("Hi")), key(&ask("Hi").with_model("other")));
    let mapped = LlmRequest::chat("x", [donjon_core::Message::user("Hi")]).with_model("m");
    assert_eq!(key(&ask("Hi")), key(&mapped));
}

#[test]
fn scopes_are_apart() {
    let of = |tenant: &str, user: &str| {
        ask("Hi").on_behalf_of(
            Identity::builder()
                .tenant(tenant)
                .user(user)
                .project("p")
                .build(),
        )
    };
    let (one, other) = (of("a", "u"), of("a", "v"));
    assert_eq!(
        CacheKey::of(&one, Scope::Tenant),
        CacheKey::of(&other, Scope::Tenant)
    );
    assert_ne!(
        CacheKey::of(&one, Scope::User),
        CacheKey::of(&other, Scope::User)
    );
    let elsewhere = of("b", "u");
    assert_ne!(
        CacheKey::of(&one, Scope::Tenant),
        CacheKey::of(&elsewhere, Scope::Tenant)
    );
    assert_eq!(
        CacheKey::of(&one, Scope::Shared),
        CacheKey::of(&elsewhere, Scope::Shared)
    );
    assert_ne!(
        CacheKey::of(&one, Scope::Shared),
        CacheKey::of(&one, Scope::Tenant)
    );
    // Nobody's tenant is not the tenant without a name.
    assert_ne!(key(&ask("Hi")), key(&of_tenant(ask("Hi"), "")));
    // Names do not run together.
    let run = |tenant, user| CacheKey::of(&of(tenant, user), Scope::User);
    assert_ne!(run("ab", "c"), run("a", "bc"));
}

/// A message in the words of another dialect may say more than its translation.
#[test]
fn another_dialects_own_words_are_in_it() {
    let with = |json: &'static str| {
        let mut request = ask("Hi");
        request.edit_chat().expect("a chat").wire = Some(Wire::new(Dialect::Anthropic, json));
        key(&request)
    };
    let one = with(r#"{"model":"m","top_k":5,"stream":true,"messages":[]}"#);
    assert_eq!(one, with(r#"{"messages": [], "top_k":5}"#));
    assert_ne!(one, with(r#"{"messages":[],"top_k":6}"#));
    assert_ne!(one, key(&ask("Hi")));
}

#[test]
fn embeddings_have_keys() {
    let embed = |edit: fn(&mut Embed)| {
        let mut embed = Embed::new(["one", "two"]);
        edit(&mut embed);
        key(&LlmRequest::new("m", Prompt::Embed(embed)))
    };
    let all = [
        embed(|_| ()),
        embed(|it| it.dimensions = Some(5)),
        embed(|it| it.encoding_format = Some("base64".into())),
        embed(|it| it.input = EmbedInput::Texts(vec!["onetwo".into()])),
        embed(|it| it.input = EmbedInput::Texts(vec!["two".into(), "one".into()])),
        embed(|it| it.input = EmbedInput::Tokens(vec![vec![1, 2]])),
        embed(|it| it.input = EmbedInput::Tokens(vec![vec![1], vec![2]])),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one), "{at}");
    }
}

/// It is the same in every process, on every platform, in every version: what was kept elsewhere is
/// found. A change of the form is a new version of it.
#[test]
fn it_does_not_change() {
    assert_eq!(
        key(&read(&full().to_string())).to_string(),
        "fce50f5b46812f873593c446e98e090f2f4152614f8a2aac9b1e91696f23779e"
    );
    assert_eq!(
        key(&of_tenant(ask("Hi"), "acme")).to_string(),
        "a86ddfb39dd2be14049e9553ae4ac4b8d72475ce11c7036100f8f275f7bd7c30"
    );
}
