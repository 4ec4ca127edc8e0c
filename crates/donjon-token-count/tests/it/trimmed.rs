//! What is left of a conversation is one.

use std::collections::HashSet;

use donjon_core::{Chat, LlmRequest, Message, Prompt, Role, ToolCall, shape::Check};
use donjon_token_count::{Model, OpenAi, Rules, TokenCountLayer};
use proptest::prelude::*;

/// A turn: how long the question is, the tools called in each step with the order of their results, and
/// whether the model says something at its end.
#[derive(Clone, Debug)]
struct Turn {
    words: usize,
    steps: Vec<(usize, bool)>,
    answered: bool,
    reminded: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let steps = prop::collection::vec((1..4_usize, any::<bool>()), 0..3);
    let turn = (1..60_usize, steps, any::<bool>(), prop::bool::weighted(0.1));
    turn.prop_map(|(words, steps, answered, reminded)| Turn {
        words,
        steps,
        answered,
        reminded,
    })
}

fn conversation(turns: &[Turn]) -> Vec<Message> {
    let mut messages = vec![Message::system("Be brief.")];
    let mut calls = 0;
    for (n, turn) in turns.iter().enumerate() {
        // The number makes each its own.
        messages.push(Message::user(format!("{n} {}", "word ".repeat(turn.words))));
        for (count, reversed) in &turn.steps {
            let mut asks = Message::assistant("");
            let ids: Vec<_> = (0..*count).map(|n| format!("call-{}", calls + n)).collect();
            calls += count;
            for id in &ids {
                asks.tool_calls
                    .push(ToolCall::function(id.clone(), "look", "{}"));
            }
            messages.push(asks);
            let mut results: Vec<_> = ids
                .iter()
                .map(|id| Message::tool(id.clone(), "seen"))
                .collect();
            if *reversed {
                results.reverse();
            }
            messages.extend(results);
        }
        if turn.reminded {
            messages.push(Message::system("Remember."));
        }
        if turn.answered {
            messages.push(Message::assistant("Yes."));
        }
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn calls_of_tools_stay_with_their_results(
        turns in prop::collection::vec(turn(), 1..12),
        room in 60..600_u64,
    ) {
        let model = Model::new(OpenAi::O200k, Rules::openai()).context(room);
        let layer = TokenCountLayer::builder().model("m", model).trim(true).default_output(10);
        let layer = layer.build().expect("sensible");
        let messages = conversation(&turns);
        let mut request = LlmRequest::new("m", Prompt::Chat(Chat::new(messages.clone())));
        if layer.check().check(&mut request).is_err() {
            // What must stay is too much: nothing was left out.
            prop_assert_eq!(request.as_chat().expect("a chat").messages.len(), messages.len());
            return Ok(());
        }
        let count = layer.handle().count(&request);
        prop_assert!(count.least() < room, "{count} of {room}");
        let left = &request.as_chat().expect("a chat").messages;
        let mut asked = HashSet::new();
        for message in left.iter() {
            for call in &message.tool_calls {
                asked.insert(call.id.as_deref().unwrap_or_default().to_owned());
            }
            if message.role == Role::Tool {
                let id = message.tool_call_id.as_deref().unwrap_or_default().to_owned();
                prop_assert!(asked.remove(&id), "a result without its call");
            }
        }
        prop_assert!(asked.is_empty(), "calls without results: {asked:?}");
        let system = |messages: &mut dyn Iterator<Item = Role>| messages.filter(|role| *role == Role::System).count();
        prop_assert_eq!(
            system(&mut left.iter().map(|message| message.role.clone())),
            system(&mut messages.iter().map(|message| message.role.clone()))
        );
        let spoken = left.iter().find(|message| message.role != Role::System);
        prop_assert_eq!(&spoken.expect("the last turn").role, &Role::User);
    }
}
