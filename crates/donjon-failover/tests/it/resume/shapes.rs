//! What was shown, and what is made of what another target says.

use donjon_core::{ChoiceDelta, Chunk, Delta, ErrorKind, FinishReason, LlmRequest};
use donjon_testkit::{Script, ScriptedLlm};

use super::{begun, continuing, cut, get, resuming, words};
use crate::{model, request};

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_a_tool_was_called_is_never_spliced() {
    let calls = || Script::words(3).tool_call("weather", r#"{"city":"Paris","unit":"C"}"#);
    // In the middle of its name, of its arguments, and when all of them were shown.
    for after in [4, 5, 7] {
        let (a, b) = (model(calls().cut_after(after)), model(calls()));
        let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
        assert_eq!(
            (got.kind(), b.count()),
            (Some(ErrorKind::Incomplete), 0),
            "{after}"
        );
        assert!(got.error.expect("an error").attempts().is_empty());
    }
    // Only text was shown so far: the call is whole, and another one's.
    let (a, b) = (model(calls().cut_after(2)), model(calls()));
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!((got.text(), got.kind()), (words(3), None));
    let message = &got.fold.choices[0].message;
    assert_eq!(
        message.tool_calls[0].arguments(),
        r#"{"city":"Paris","unit":"C"}"#
    );
    // One that calls a tool before it has said what was shown answers otherwise.
    let (a, b) = (
        model(cut(40)),
        model(Script::words(3).tool_call("weather", "{}")),
    );
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!(got.text(), words(40));
    assert_eq!(
        got.error.expect("an error").attempts()[1].error.kind(),
        ErrorKind::InvalidResponse
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_and_unknown_kinds_are_not_gone_on_with() {
    let refused = Script::words(1).refusal("I will not say more").cut_after(3);
    for shown in [refused, Script::words(60).unknown_at(3).cut_after(9)] {
        let (a, b) = (model(shown), model(Script::words(60)));
        let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
        assert_eq!((got.kind(), b.count()), (Some(ErrorKind::Incomplete), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn several_choices_are_not_gone_on_with() {
    let (a, b) = (model(cut(40)), model(Script::words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let mut asked = request();
    asked.edit_chat().expect("a chat").n = Some(2);
    let answer = crate::ask(&failover, asked.streamed())
        .await
        .expect("it begins");
    let got = super::read(answer).await;
    assert_eq!((got.kind(), b.count()), (Some(ErrorKind::Incomplete), 0));
}

#[tokio::test(start_paused = true)]
async fn reasoning_is_aligned_where_nothing_else_was_shown_and_else_not_shown_again() {
    let thinks = || Script::words(60).reasoning("so it is that a keep stands");
    let folded = |got: &super::Got| {
        let message = &got.fold.choices[0].message;
        (
            message.reasoning.clone().unwrap_or_default(),
            message.text().into_owned(),
        )
    };
    let all = ("so it is that a keep stands".into(), words(60));
    // In the reasoning: no target can be given that as a begun answer.
    let (a, b) = (model(thinks().cut_after(3)), model(thinks()));
    let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
    assert_eq!(folded(&got), all);
    assert!(begun(&b.calls()[0].request).is_none());
    // One that reasons otherwise answers otherwise; so does one that does not reason at all.
    for other in [Script::words(60).reasoning("so what"), Script::words(60)] {
        let (a, b) = (model(thinks().cut_after(3)), model(other));
        let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
        assert_eq!(folded(&got), ("so it is ".into(), String::new()));
        assert_eq!(got.kind(), Some(ErrorKind::Incomplete));
    }
    // After it: whatever others think, it is their text that counts.
    for continues in [false, true] {
        let other = ScriptedLlm::from_fn(|request| {
            let rest = words(60).split_off(begun(request).map_or(0, |begun| begun.len()));
            Script::answer(rest).reasoning("let me see")
        });
        let (a, b) = (model(thinks().cut_after(20)), other.commits());
        let got = get(&resuming(&[(&a, false), (&b, continues)]), request()).await;
        assert_eq!((folded(&got), got.kind()), (all.clone(), None));
    }
}

#[tokio::test(start_paused = true)]
async fn texts_may_be_cut_anywhere() {
    let text = "Größe, 漢字 und 🏰 – alles heil";
    let letters = || text.chars().map(String::from).collect::<Vec<_>>();
    for after in 1..letters().len() {
        let a = model(Script::tokens(letters()).cut_after(after));
        // Pieces of other lengths, whose ends fall elsewhere.
        let pieces: Vec<String> = letters().chunks(3).map(<[String]>::concat).collect();
        for continues in [false, true] {
            let pieces = pieces.clone();
            let b = ScriptedLlm::from_fn(move |request| match begun(request) {
                Some(begun) => Script::answer(&text[begun.len()..]),
                None => Script::tokens(pieces.clone()),
            });
            let b = b.commits();
            let got = get(&resuming(&[(&a, false), (&b, continues)]), request()).await;
            assert_eq!((got.text().as_str(), got.kind()), (text, None), "{after}");
        }
    }
}

/// A model that goes on with `rest`, whatever was begun.
fn goes_on(rest: &str) -> ScriptedLlm {
    let rest = rest.to_owned();
    model(Script::tokens(
        rest.split_inclusive(|_| true).map(String::from),
    ))
}

async fn spliced(shown: &[&str], rest: &str) -> (String, String) {
    let a = model(Script::tokens(shown.iter().copied()).cut_after(shown.len()));
    let b = goes_on(rest);
    let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
    assert_eq!(got.kind(), None);
    let sent = begun(&b.calls()[0].request).expect("begun");
    (sent, got.text())
}

#[tokio::test(start_paused = true)]
async fn blanks_at_the_end_are_neither_lost_nor_doubled() {
    for rest in [" of stone", "of stone"] {
        let (sent, text) = spliced(&["A tower "], rest).await;
        assert_eq!((&*sent, &*text), ("A tower", "A tower of stone"));
    }
    let (sent, text) = spliced(&["A tower", "\n\n"], "\n\nIt stands.").await;
    assert_eq!((&*sent, &*text), ("A tower", "A tower\n\nIt stands."));
    let (_, text) = spliced(&["A tower", "\n\n"], "\nIt stands.").await;
    assert_eq!(text, "A tower\n\nIt stands.");
    let (_, text) = spliced(&["A tower"], " of stone").await;
    assert_eq!(text, "A tower of stone");
    // Nothing but blanks is no beginning.
    let (a, b) = (
        model(Script::tokens([" ", "\n", "x"]).cut_after(2)),
        model(Script::tokens([" \nyes"])),
    );
    let got = get(&resuming(&[(&a, false), (&b, true)]), request()).await;
    assert_eq!(got.text(), " \nyes");
    assert!(begun(&b.calls()[0].request).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_prefill_that_is_echoed_is_shown_once() {
    let (_, text) = spliced(&["A keep is ", "a tower "], "A keep is a tower of stone").await;
    assert_eq!(text, "A keep is a tower of stone");
    // What only looks like it is shown.
    let (_, text) = spliced(&["A keep is ", "a tower"], "; A keep is strong").await;
    assert_eq!(text, "A keep is a tower; A keep is strong");
    let (_, text) = spliced(&["A keep is ", "a tower. "], "A keep is strong").await;
    assert_eq!(text, "A keep is a tower. A keep is strong");
    let (_, text) = spliced(&["A keep is ", "a tower. "], "A keep").await;
    assert_eq!(text, "A keep is a tower. A keep");
}

#[tokio::test(start_paused = true)]
async fn the_rest_has_what_is_left_of_the_limit() {
    let (a, b) = (model(cut(40)), continuing(&words(60)));
    let failover = resuming(&[(&a, false), (&b, true)]);
    let mut asked = request();
    let chat = asked.edit_chat().expect("a chat");
    (chat.max_tokens, chat.max_completion_tokens) = (Some(1000), Some(10));
    get(&failover, asked).await;
    let chat = b.calls()[0].request.as_chat().expect("a chat").clone();
    let spent = words(40).len().div_ceil(4) as u64;
    assert_eq!(
        (chat.max_tokens, chat.max_completion_tokens),
        (Some(1000 - spent), Some(1))
    );
    // Given anew, it is given whole.
    let b = model(Script::words(60));
    let mut asked = request();
    asked.edit_chat().expect("a chat").max_tokens = Some(1000);
    get(&resuming(&[(&a, false), (&b, false)]), asked).await;
    assert_eq!(
        b.calls()[0].request.as_chat().expect("a chat").max_tokens,
        Some(1000)
    );
}

#[tokio::test(start_paused = true)]
async fn a_prescribed_form_is_given_anew() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],
        "response_format":{"type":"json_object"}}"#;
    let asked = LlmRequest::from_openai_chat(body).expect("a good request");
    let tokens = || Script::tokens(["{\"a\"", ":1", "}"]);
    let (a, b) = (model(tokens().cut_after(2)), model(tokens()));
    let got = get(&resuming(&[(&a, false), (&b, true)]), asked).await;
    assert_eq!(got.text(), "{\"a\":1}");
    assert!(begun(&b.calls()[0].request).is_none());
}

/// S10: one role; and one name and model, which are those of the first.
#[tokio::test(start_paused = true)]
async fn what_opens_an_answer_comes_once() {
    let a = model(cut(40).model("first"));
    let b = model(Script::words(60).model("second"));
    let failover = resuming(&[(&a, false), (&b, false)]);
    let answer = crate::ask(&failover, request().streamed())
        .await
        .expect("it begins");
    assert_eq!(answer.head.target.as_deref(), Some("a"));
    let got = super::read(answer).await;
    got.assert_one();
    assert!(
        got.chunks
            .iter()
            .all(|chunk| chunk.model.as_deref() == Some("first"))
    );
    assert_eq!(
        got.chunks[0].choices[0].role,
        Some(donjon_core::Role::Assistant)
    );
    // A first that opened nothing leaves it to the second.
    let a = model(cut(40).no_role());
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!(got.text(), words(60));
}

/// What came as JSON is written from its fields once it was changed; what is not known survives.
#[tokio::test(start_paused = true)]
async fn what_is_passed_on_from_another_is_no_longer_as_it_came() {
    let wire = |id: &str, delta: &str, finish: &str| {
        let json = format!(
            r#"{{"id":"{id}","object":"chat.completion.chunk","created":1,"model":"{id}-m","x_own":7,"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
        );
        Chunk::from_openai(json).expect("a good chunk")
    };
    let chunks = |script: Script, id: &str, n: usize| {
        let mut script = script.no_role().no_usage().no_finish_reason();
        let all = [
            wire(id, r#"{"role":"assistant","content":""}"#, "null"),
            wire(id, r#"{"content":"A ke"}"#, "null"),
            wire(id, r#"{"content":"ep."}"#, "null"),
            wire(id, "{}", "\"stop\""),
        ];
        for chunk in all.into_iter().take(n) {
            script = script.chunk_at(0, chunk);
        }
        script
    };
    let a = model(chunks(Script::words(0), "a", 2));
    let b = model(chunks(Script::words(0), "b", 4));
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!((got.text().as_str(), got.kind()), ("A keep.", None));
    let dialect = donjon_core::Dialect::OpenAi;
    let as_it_came: Vec<_> = got
        .chunks
        .iter()
        .map(|c| c.wire(dialect).is_some())
        .collect();
    assert_eq!(as_it_came, [true, true, false, false, false]);
    let json: serde_json::Value = serde_json::to_value(&got.chunks[2]).expect("JSON");
    assert_eq!(
        (&json["id"], &json["model"], &json["x_own"]),
        (&"a".into(), &"a-m".into(), &7.into())
    );
    assert_eq!(
        json["choices"][0]["delta"],
        serde_json::json!({"content": "ep."})
    );
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_both_meet_in_any_chunk() {
    let whole = |finish: Option<FinishReason>, text: &str| {
        let mut choice = ChoiceDelta::text(0, text);
        choice.finish_reason = finish;
        let mut delta = Delta::default();
        delta.choices.push(choice);
        Script::words(0)
            .no_role()
            .no_usage()
            .no_finish_reason()
            .chunk_at(0, delta)
    };
    // All of it and its end in one chunk.
    let (a, b) = (
        model(whole(None, "A ke")),
        model(whole(Some(FinishReason::Stop), "A keep.")),
    );
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!((got.text().as_str(), got.kind()), ("A keep.", None));
    // It had ended there.
    let b = model(whole(Some(FinishReason::Length), "A ke"));
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!((got.text().as_str(), got.kind()), ("A ke", None));
    assert_eq!(
        got.fold.choices[0].finish_reason,
        Some(FinishReason::Length)
    );
    // It ends before.
    let b = model(whole(Some(FinishReason::Stop), "A k"));
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!(
        (got.text().as_str(), got.kind()),
        ("A ke", Some(ErrorKind::Incomplete))
    );
}

/// Some servers say their reasoning twice, in everybody's words and in their own.
#[tokio::test(start_paused = true)]
async fn reasoning_that_comes_again_is_not_shown_in_other_words_either() {
    let thinks = |n: usize| {
        let mut script = Script::words(0).no_role().no_usage();
        for (at, piece) in ["so ", "it ", "is "].into_iter().take(n).enumerate() {
            let json = format!(
                r#"{{"choices":[{{"index":0,"delta":{{"reasoning":"{piece}","reasoning_details":[{{"text":"{piece}"}}]}}}}]}}"#
            );
            script = script.chunk_at(at, Chunk::from_openai(json).expect("a good chunk"));
        }
        script
    };
    let (a, b) = (model(thinks(2).cut_after(2)), model(thinks(3)));
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    assert_eq!(got.kind(), None);
    let said: Vec<_> = got.chunks.iter().flat_map(|chunk| &chunk.choices).collect();
    let own = |c: &&&ChoiceDelta| c.extra.get("reasoning_details").is_some();
    assert_eq!(said.iter().filter(own).count(), 3, "{said:?}");
    let message = &got.fold.choices[0].message;
    assert_eq!(message.reasoning.as_deref(), Some("so it is "));
}

/// Those of a token of which a part was shown before are not known.
#[tokio::test(start_paused = true)]
async fn probabilities_stay_with_the_tokens_that_they_are_of() {
    let said = |text: &str| {
        let json = format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":{{"content":[{{"token":"{text}","logprob":-0.5}}]}}}}]}}"#
        );
        Chunk::from_openai(json).expect("a good chunk")
    };
    let plays = |pieces: &[&str]| {
        let script = Script::words(0).no_role().no_usage();
        let pieces = pieces.iter().enumerate();
        pieces.fold(script, |script, (at, piece)| {
            script.chunk_at(at, said(piece))
        })
    };
    let (a, b) = (
        model(plays(&["A ke", "e"]).cut_after(2)),
        model(plays(&["A k", "eep", ", so"])),
    );
    let got = get(&resuming(&[(&a, false), (&b, false)]), request()).await;
    let choices = got.chunks.iter().flat_map(|chunk| &chunk.choices);
    let told: Vec<_> = choices
        .filter_map(|c| Some((c.content.as_deref()?, c.logprobs.is_some())))
        .collect();
    let due = [("A ke", true), ("e", true), ("p", false), (", so", true)];
    assert_eq!(told, due);
}
