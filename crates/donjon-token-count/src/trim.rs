//! Leaving out the oldest of a conversation.

use std::sync::Arc;

use donjon_core::{Message, Role};

/// Which messages are kept so that their `tokens` fit into `room`; `None` where they do not even if
/// only what must stay does.
///
/// What the system says stays, and so does everything from the last message of the user on. Before
/// that the oldest goes first, an assistant's message with the results of the tools it called, and what
/// is left of the conversation begins with the user.
pub(crate) fn keep(messages: &[Arc<Message>], tokens: &[u64], room: u64) -> Option<Vec<bool>> {
    let mut keep = vec![true; messages.len()];
    let mut left: u64 = tokens.iter().sum();
    if left <= room {
        return Some(keep);
    }
    let last_turn = last_turn(messages);
    let mut at = 0;
    while at < last_turn {
        let end = unit_end(messages, at, last_turn);
        // Once it fits, what the user said may stay, and all that follows it.
        if left <= room && messages[at].role == Role::User {
            break;
        }
        for gone in at..end {
            if !is_system(&messages[gone]) {
                keep[gone] = false;
                left -= tokens[gone];
            }
        }
        at = end;
    }
    (left <= room).then_some(keep)
}

/// Where the last turn begins: at the last message of the user, or at the last message with all that
/// belongs to it where the user says nothing.
fn last_turn(messages: &[Arc<Message>]) -> usize {
    let user = messages.iter().rposition(|m| m.role == Role::User);
    user.or_else(|| {
        let begins = |m: &Arc<Message>| m.role != Role::Tool && !is_system(m);
        messages.iter().rposition(begins)
    })
    .unwrap_or(0)
}

/// A message and the results of the tools that it called.
fn unit_end(messages: &[Arc<Message>], at: usize, last_turn: usize) -> usize {
    let mut end = at + 1;
    while end < last_turn && (messages[end].role == Role::Tool || is_system(&messages[end])) {
        end += 1;
    }
    end
}

fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use donjon_core::ToolCall;
    use proptest::prelude::*;

    fn message(kind: char) -> Arc<Message> {
        Arc::new(match kind {
            's' => Message::system("s"),
            'u' => Message::user("u"),
            'a' => Message::assistant("a"),
            'c' => {
                let mut calls = Message::assistant("c");
                calls.tool_calls.push(ToolCall::function("1", "f", "{}"));
                calls
            }
            _ => Message::tool("1", "t"),
        })
    }

    /// What is kept of a conversation of messages of one token each.
    fn kept(conversation: &str, room: u64) -> Option<String> {
        let messages: Vec<_> = conversation.chars().map(message).collect();
        let keep = keep(&messages, &vec![1; messages.len()], room)?;
        let kept = conversation.chars().zip(keep).filter(|(_, keep)| *keep);
        Some(kept.map(|(kind, _)| kind).collect())
    }

    #[test]
    fn the_oldest_go_first() {
        let kept = |conversation, room| kept(conversation, room).expect("it fits");
        assert_eq!(kept("suauau", 6), "suauau");
        assert_eq!(kept("suauau", 5), "suau");
        assert_eq!(kept("suauau", 3), "su");
        // Calls go with their results, and no answer is left without its question.
        assert_eq!(kept("sucttauau", 8), "suau");
        assert_eq!(kept("sucttauact", 6), "suact");
        assert_eq!(kept("uasua", 3), "sua");
        assert_eq!(kept("aacttu", 1), "u");
    }

    #[test]
    fn what_must_stay_may_be_too_much() {
        assert_eq!(kept("suau", 1), None);
        assert_eq!(kept("sucttctt", 7), None);
        assert_eq!(kept("", 0), Some(String::new()));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_a_conversation(
            conversation in "s{0,2}(u|a|ct{1,3}|s){0,12}u(ct{1,2}){0,2}",
            room in 0..24_u64,
        ) {
            let messages: Vec<_> = conversation.chars().map(message).collect();
            let ones = vec![1; messages.len()];
            let last = conversation.rfind('u').expect("a user");
            let must = conversation.char_indices().filter(|(at, kind)| *at >= last || *kind == 's');
            let must = must.count() as u64;
            let Some(keep) = keep(&messages, &ones, room) else {
                prop_assert!(must > room);
                return Ok(());
            };
            let kept: Vec<_> = conversation.chars().enumerate().filter(|(at, _)| keep[*at]).collect();
            prop_assert!(kept.len() as u64 <= room);
            for (at, kind) in conversation.char_indices() {
                prop_assert!(keep[at] || (kind != 's' && at < last));
                // A result is kept exactly if the message before it is, but for what the system says.
                if kind == 't' {
                    let before = conversation[..at].rfind(['c', 't']).expect("a call");
                    prop_assert_eq!(keep[at], keep[before]);
                }
            }
            // What is gone is the beginning.
            let spoken: Vec<_> = conversation.chars().zip(&keep).filter(|(kind, _)| *kind != 's').collect();
            let first = spoken.iter().position(|(_, keep)| **keep).expect("the last turn");
            prop_assert!(spoken[first..].iter().all(|(_, keep)| **keep));
            prop_assert!(first == 0 || spoken[first].0 == 'u');
        }
    }
}
