//! Route selection expressions.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A route selection expression, such as `$request.body.action`.
///
/// Variables are `$request.body.<path>` and `${request.body.<path>}`. A path consists of names
/// joined by dots, each with any number of indexes, such as `items[0].type`. Variables may stand
/// between static text, in which `\$` is a dollar sign.
///
/// See [route selection expressions](https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-routes.html).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSelection {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Static(String),
    Body(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// The result of evaluating the expression for a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// A string to compare with the route keys.
    Key(String),
    /// No key, so that `$default` applies, and why.
    Nothing(&'static str),
}

/// An error returned when a string is not a route selection expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a route selection expression: expected `$request.body.<path>` or `${{request.body.<path>}}` at \
     byte {position}"
)]
pub struct InvalidRouteSelection {
    text: String,
    position: usize,
}

impl RouteSelection {
    /// Evaluates the expression for the body of a message.
    ///
    /// An expression without a variable ignores the body. A missing value is an empty string.
    /// `null`, an object, and a body that is not JSON select `$default`.
    pub(super) fn select(&self, body: &str) -> Selected {
        if let [Part::Static(text)] = self.parts.as_slice() {
            return Selected::Key(text.clone());
        }
        let Ok(body) = serde_json::from_str::<Value>(body) else { return Selected::Nothing("the body is not JSON") };
        let mut selected = String::new();
        for part in &self.parts {
            match part {
                Part::Static(text) => selected.push_str(text),
                Part::Body(path) => {
                    let value = path.iter().try_fold(&body, |value, step| match step {
                        Step::Name(name) => value.get(name),
                        Step::Index(index) => value.get(index),
                    });
                    match value.map(text_of) {
                        Some(Some(text)) => selected.push_str(&text),
                        Some(None) => return Selected::Nothing("the value is null or an object"),
                        None => {}
                    }
                }
            }
        }
        Selected::Key(selected)
    }

    /// Returns whether the expression has no variable, so that all messages select the same.
    pub(super) fn is_static(&self) -> bool {
        !self.parts.iter().any(|part| matches!(part, Part::Body(_)))
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(text_of).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// The default expression is `$request.body.action`.
impl Default for RouteSelection {
    fn default() -> Self {
        let action = Part::Body(vec![Step::Name("action".to_owned())]);
        Self { text: "$request.body.action".to_owned(), parts: vec![action] }
    }
}

impl fmt::Display for RouteSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RouteSelection {
    type Err = InvalidRouteSelection;

    fn from_str(text: &str) -> Result<Self, InvalidRouteSelection> {
        const BODY: &str = "request.body.";
        let error = |rest: &str| InvalidRouteSelection {
            text: text.to_owned(),
            position: text.len().saturating_sub(rest.len()),
        };
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("\\$") {
                literal.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('$') {
                let (variable, after) = match after.strip_prefix('{') {
                    Some(braced) => braced.split_once('}').ok_or_else(|| error(rest))?,
                    None => {
                        let is_end = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '[' | ']'));
                        after.split_at(after.find(is_end).unwrap_or(after.len()))
                    }
                };
                let path = variable.strip_prefix(BODY).ok_or_else(|| error(rest))?;
                let path = steps(path).ok_or_else(|| error(rest))?;
                if !literal.is_empty() {
                    parts.push(Part::Static(std::mem::take(&mut literal)));
                }
                parts.push(Part::Body(path));
                rest = after;
            } else {
                literal.push(next);
                rest = rest.strip_prefix(next).unwrap_or_default();
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Static(literal));
        }
        if parts.is_empty() {
            return Err(error(rest));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

/// Parses a path, or returns `None` if it cannot be evaluated (RTE-7).
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() || name.contains(']') {
            return None;
        }
        steps.push(Step::Name(name.to_owned()));
        let mut rest = indexes;
        while let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(steps)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests {
    use super::*;

    fn selected(expression: &str, body: &str) -> Option<String> {
        match expression.parse::<RouteSelection>().unwrap().select(body) {
            Selected::Key(key) => Some(key),
            Selected::Nothing(_) => None,
        }
    }

    #[test]
    fn rte_7_path_may_contain_indexes() {
        let body = r#"{"items":[{"type":"a"},{"type":["b","c"]}],"grid":[[1,2],[3,4]]}"#;
        for (expression, expected) in [
            ("$request.body.items[0].type", "a"),
            ("${request.body.items[1].type[1]}", "c"),
            ("$request.body.grid[1][0]", "3"),
            ("$request.body.items[7].type", ""),
            ("$request.body.grid[0]", "[1, 2]"),
        ] {
            assert_eq!(selected(expression, body).as_deref(), Some(expected), "{expression}");
        }
        for expression in ["a[x]", "a[", "a[0]b", "[0]", "a]", "a[-1]"] {
            assert!(format!("${{request.body.{expression}}}").parse::<RouteSelection>().is_err(), "{expression}");
        }
    }

    #[test]
    fn rte_1_variables_and_static_text_are_evaluated_once() {
        let body = r#"{"service":"chat","action":"join","deep":{"er":"x"},"trick":"$request.body.action"}"#;
        for (expression, expected) in [
            ("$request.body.action", "join"),
            ("${request.body.action}", "join"),
            ("${request.body.service}/${request.body.action}", "chat/join"),
            ("$request.body.service/$request.body.action", "chat/join"),
            ("${request.body.action}-${request.body.none}", "join-"),
            ("$request.body.deep.er", "x"),
            ("$request.body.trick", "$request.body.action"),
            ("action", "action"),
            (r"\$5-${request.body.action}", "$5-join"),
        ] {
            assert_eq!(selected(expression, body).as_deref(), Some(expected), "{expression}");
        }
    }

    #[test]
    fn rte_2_result_is_converted_to_string() {
        for (value, expected) in [
            ("7", Some("7")),
            ("1.5", Some("1.5")),
            ("true", Some("true")),
            (r#"["a", 2]"#, Some("[a, 2]")),
            ("null", None),
            ("{}", None),
        ] {
            let body = format!(r#"{{"action":{value}}}"#);
            assert_eq!(selected("$request.body.action", &body).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn rte_3_and_6_a_body_that_is_not_json_selects_nothing() {
        for body in ["", "hello", "{'action':'join'}", r#"{"action":"join"} x"#] {
            assert_eq!(selected("$request.body.action", body), None, "{body}");
        }
        assert_eq!(selected("$request.body.action", "[1]").as_deref(), Some(""));
    }

    #[test]
    fn invalid_expression_error_names_the_position() {
        for (expression, position) in
            [("", 0), ("$request.header.x", 0), ("a$", 1), ("${request.body.a", 0), ("x/$request.body.", 2)]
        {
            let error = expression.parse::<RouteSelection>().unwrap_err();
            assert_eq!(error.position, position, "{expression}");
        }
    }
}
