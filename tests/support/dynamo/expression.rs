//! Condition, filter, and update expressions over items in DynamoDB's JSON.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub type Item = Map<String, Value>;

/// A request's expression attribute names and values.
pub struct Given<'a> {
    pub names: &'a Value,
    pub values: &'a Value,
}

/// A tokenized condition.
pub struct Condition(Vec<String>);

impl Condition {
    pub fn new(text: &str) -> Self {
        Self(tokens(text))
    }

    /// Returns whether an item fulfills the condition.
    pub fn holds(&self, given: &Given<'_>, item: &Item) -> bool {
        let mut parser = Parser { tokens: &self.0, at: 0, given, item };
        let holds = parser.any();
        assert_eq!(parser.at, parser.tokens.len(), "not understood: {:?}", self.0);
        holds
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_alphanumeric() || "#:_.".contains(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        match c {
            '<' | '>' if matches!(characters.peek(), Some('=' | '>')) => {
                tokens.push(format!("{c}{}", characters.next().unwrap()));
            }
            c if c.is_whitespace() => {}
            c => tokens.push(c.to_string()),
        }
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    tokens
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
    given: &'a Given<'a>,
    item: &'a Item,
}

/// Applies an update to an item.
pub fn update(expression: &str, given: &Given<'_>, item: &Item) -> Item {
    let mut changed = item.clone();
    let tokens = tokens(expression);
    let mut parser = Parser { tokens: &tokens, at: 0, given, item };
    while let Some(clause) = parser.next() {
        loop {
            let path = parser.path();
            match clause.as_str() {
                "SET" => {
                    parser.expect("=");
                    let value = parser.sum().unwrap();
                    set(&mut changed, &path, value);
                }
                "REMOVE" => remove(&mut changed, &path),
                "ADD" | "DELETE" => {
                    let given = strings(&parser.operand().unwrap());
                    let mut all: BTreeSet<String> = get(&changed, &path).map(strings).unwrap_or_default();
                    match clause.as_str() {
                        "ADD" => all.extend(given),
                        _ => all.retain(|name| !given.contains(name)),
                    }
                    match all.is_empty() {
                        true => remove(&mut changed, &path),
                        false => set(&mut changed, &path, json!({"SS": all})),
                    }
                }
                other => panic!("not understood: {other} in {expression}"),
            }
            if parser.peek() != Some(",") {
                break;
            }
            parser.at += 1;
        }
    }
    changed
}

fn strings(value: &Value) -> BTreeSet<String> {
    value["SS"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

pub fn get<'a>(item: &'a Item, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = item.get(first)?;
    match rest {
        [] => Some(value),
        rest => get(value.get("M")?.as_object()?, rest),
    }
}

fn set(item: &mut Item, path: &[String], value: Value) {
    match path {
        [last] => drop(item.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let inner = item.get_mut(first).and_then(|value| value.get_mut("M")).and_then(Value::as_object_mut);
            set(inner.expect("the document path is valid"), rest, value);
        }
        [] => {}
    }
}

fn remove(item: &mut Item, path: &[String]) {
    match path {
        [last] => drop(item.remove(last)),
        [first, rest @ ..] => {
            if let Some(inner) = item.get_mut(first).and_then(|value| value.get_mut("M")).and_then(Value::as_object_mut)
            {
                remove(inner, rest);
            }
        }
        [] => {}
    }
}

/// Compares two values of the same type.
pub fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    let number = |value: &Value| value["N"].as_str().and_then(|number| number.parse::<i128>().ok());
    match (number(one), number(other)) {
        (Some(one), Some(other)) => return Some(one.cmp(&other)),
        (None, None) => {}
        _ => return None,
    }
    match (one["S"].as_str(), other["S"].as_str()) {
        (Some(one), Some(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
        _ if one.get("SS").is_some() && other.get("SS").is_some() => {
            (strings(one) == strings(other)).then_some(Ordering::Equal)
        }
        _ => (one == other).then_some(Ordering::Equal),
    }
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(self.next().as_deref(), Some(token), "in {:?}", self.tokens);
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.peek() == Some("OR") {
            self.at += 1;
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.peek() == Some("AND") {
            self.at += 1;
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        match self.peek().unwrap() {
            "NOT" => {
                self.at += 1;
                !self.one()
            }
            "(" => {
                self.at += 1;
                let holds = self.any();
                self.expect(")");
                holds
            }
            name @ ("attribute_exists" | "attribute_not_exists") => {
                let wants = name == "attribute_exists";
                self.at += 1;
                self.expect("(");
                let path = self.path();
                self.expect(")");
                get(self.item, &path).is_some() == wants
            }
            name @ ("begins_with" | "contains") => {
                let is_prefix = name == "begins_with";
                self.at += 1;
                self.expect("(");
                let value = self.operand();
                self.expect(",");
                let wanted = self.operand();
                self.expect(")");
                let (Some(value), Some(wanted)) = (value, wanted) else { return false };
                match is_prefix {
                    true => value["S"].as_str().unwrap().starts_with(wanted["S"].as_str().unwrap()),
                    false => strings(&value).contains(wanted["S"].as_str().unwrap()),
                }
            }
            _ => {
                let left = self.operand();
                let operator = self.next().unwrap();
                if operator == "BETWEEN" {
                    let first = self.operand();
                    self.expect("AND");
                    let last = self.operand();
                    let (Some(left), Some(first), Some(last)) = (left, first, last) else { return false };
                    return compare(&left, &first).is_some_and(Ordering::is_ge)
                        && compare(&left, &last).is_some_and(Ordering::is_le);
                }
                let right = self.operand();
                let (Some(left), Some(right)) = (left, right) else { return operator == "<>" };
                let order = compare(&left, &right);
                match operator.as_str() {
                    "=" => order == Some(Ordering::Equal),
                    "<>" => order != Some(Ordering::Equal),
                    "<" => order.is_some_and(Ordering::is_lt),
                    "<=" => order.is_some_and(Ordering::is_le),
                    ">" => order.is_some_and(Ordering::is_gt),
                    ">=" => order.is_some_and(Ordering::is_ge),
                    other => panic!("not understood: {other} in {:?}", self.tokens),
                }
            }
        }
    }

    fn path(&mut self) -> Vec<String> {
        let token = self.next().unwrap();
        let part = |part: &str| match part.starts_with('#') {
            true => self.given.names[part].as_str().unwrap_or_else(|| panic!("no name {part}")).to_owned(),
            false => part.to_owned(),
        };
        token.split('.').map(part).collect()
    }

    fn sum(&mut self) -> Option<Value> {
        let mut sum = self.operand()?;
        while let Some(sign @ ("+" | "-")) = self.peek() {
            let sign = if sign == "+" { 1 } else { -1 };
            self.at += 1;
            let more = self.operand()?;
            let number = |value: &Value| value["N"].as_str().unwrap().parse::<i128>().unwrap();
            sum = json!({"N": (number(&sum) + sign * number(&more)).to_string()});
        }
        Some(sum)
    }

    fn operand(&mut self) -> Option<Value> {
        let token = self.peek().unwrap();
        if token.starts_with(':') {
            let value = self.given.values.get(token).unwrap_or_else(|| panic!("no value {token}")).clone();
            self.at += 1;
            return Some(value);
        }
        if token == "size" {
            self.at += 1;
            self.expect("(");
            let path = self.path();
            self.expect(")");
            let value = get(self.item, &path)?;
            let size = value.get("M").map(|members| members.as_object().unwrap().len());
            let size = size.or_else(|| value["S"].as_str().map(str::len)).unwrap();
            return Some(json!({"N": size.to_string()}));
        }
        let path = self.path();
        get(self.item, &path).cloned()
    }
}
