//! The tokens of tools and of the form of the answer.

use donjon_core::{Function, Tool};
use serde_json::{Map, Value};

use crate::{count::Count, rules::ToolRule};

/// Tokens of a property, of its list of values and of each value, beside their texts; those with
/// which the tools end. From OpenAI's cookbook.
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const VALUES: u64 = 3;
const VALUE: u64 = 3;
const END: u64 = 12;

/// How deep parameters within parameters are looked at.
const DEPTH: usize = 8;

/// The tokens of `tools`, of which there is one at least; `forced`: one has to be called.
pub(crate) fn tokens(
    rule: ToolRule,
    tools: &[Tool],
    forced: bool,
    count: &dyn Fn(&str) -> Count,
) -> Count {
    match rule {
        ToolRule::OpenAi { per_function } => {
            let functions = tools.iter().map(|tool| match &tool.function {
                Some(function) => openai(function, count).plus(Count::Exact(per_function.into())),
                None => unknown(tool, count),
            });
            functions.fold(Count::Exact(END), Count::plus)
        }
        ToolRule::Json { auto, forced: must } => {
            let own = if forced { must } else { auto };
            let texts = tools.iter().map(|tool| match &tool.function {
                Some(function) => doubtful(json(function, count)),
                None => unknown(tool, count),
            });
            texts.fold(Count::Exact(own.into()), Count::plus)
        }
    }
}

/// Every text of a tool that decides its count.
pub(crate) fn texts<'a>(tool: &'a Tool, tell: &mut dyn FnMut(&'a str)) {
    match &tool.function {
        Some(function) => {
            tell(&function.name);
            tell(function.description.as_deref().unwrap_or_default());
            let parameters = function.parameters.as_deref();
            tell(
                parameters
                    .map(serde_json::value::RawValue::get)
                    .unwrap_or_default(),
            );
        }
        None => {
            for (name, value) in tool.extra.iter() {
                tell(name);
                tell(value.get());
            }
        }
    }
}

/// The tokens of a schema that the answer has to follow. How it is told to the model is not published.
pub(crate) fn form(schema: &str, count: &dyn Fn(&str) -> Count) -> Count {
    let text = count(schema);
    text.plus(Count::within(10, 10 + text.tokens() / 2))
}

/// A third more or less.
fn doubtful(count: Count) -> Count {
    count.plus(Count::within(0, count.tokens() / 3))
}

/// A tool that is no function: a few words of the provider's own.
fn unknown(tool: &Tool, count: &dyn Fn(&str) -> Count) -> Count {
    let members = tool.extra.iter().map(|(_, value)| count(value.get()));
    members.fold(Count::within(100, 100), Count::plus)
}

fn json(function: &Function, count: &dyn Fn(&str) -> Count) -> Count {
    let texts = [
        Some(&*function.name),
        function.description.as_deref(),
        function
            .parameters
            .as_deref()
            .map(serde_json::value::RawValue::get),
    ];
    // The names of the members and what stands between them.
    let texts = texts.into_iter().flatten().map(count);
    texts.fold(Count::Exact(12), Count::plus)
}

fn openai(function: &Function, count: &dyn Fn(&str) -> Count) -> Count {
    let description = function.description.as_deref().unwrap_or_default();
    let line = format!("{}:{}", function.name, without_dot(description));
    let head = count(&line);
    let Some(parameters) = &function.parameters else {
        return head;
    };
    match serde_json::from_str::<Value>(parameters.get()) {
        Ok(Value::Object(schema)) => head.plus(properties(&schema, DEPTH, count)),
        // What is no schema is sent as it is.
        _ => head.plus(doubtful(count(parameters.get()))),
    }
}

fn properties(schema: &Map<String, Value>, depth: usize, count: &dyn Fn(&str) -> Count) -> Count {
    let Some(Value::Object(properties)) = schema.get("properties") else {
        return Count::ZERO;
    };
    if properties.is_empty() {
        return Count::ZERO;
    }
    let each = properties.iter().map(|(name, property)| {
        let text = |member: &str| {
            property
                .get(member)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let line = format!(
            "{name}:{}:{}",
            text("type"),
            without_dot(text("description"))
        );
        let own = count(&line).plus(Count::Exact(PROPERTY));
        let own = own.plus(values(property, count));
        own.plus(inner(property, depth, count))
    });
    each.fold(Count::Exact(PROPERTIES), Count::plus)
}

fn values(property: &Value, count: &dyn Fn(&str) -> Count) -> Count {
    let Some(Value::Array(values)) = property.get("enum") else {
        return Count::ZERO;
    };
    let each = values.iter().map(|value| {
        let text = match value {
            Value::String(text) => count(text),
            other => count(&other.to_string()),
        };
        text.plus(Count::Exact(VALUE))
    });
    let all = each.fold(Count::ZERO, Count::plus);
    // A list costs three tokens less than its values.
    Count::within(all.tokens().saturating_sub(VALUES), all.slack())
}

/// Parameters within parameters, and what else a schema may say: no rule is published.
fn inner(property: &Value, depth: usize, count: &dyn Fn(&str) -> Count) -> Count {
    if depth == 0 {
        return doubtful(count(&property.to_string()));
    }
    let mut sum = Count::ZERO;
    if let Value::Object(schema) = property {
        sum = sum.plus(properties(schema, depth - 1, count));
        if let Some(Value::Object(items)) = schema.get("items") {
            sum = sum.plus(properties(items, depth - 1, count));
            sum = sum.plus(Count::Exact(PROPERTY));
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            if let Some(other) = schema.get(union) {
                sum = sum.plus(count(&other.to_string()));
            }
        }
    }
    doubtful(sum)
}

fn without_dot(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}
