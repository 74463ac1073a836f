//! What `uplink.cddl` says against what we write: a reader of the little of RFC 8610 that the file uses.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;

use super::batch::tests::golden as batch;
use super::message_tests::{batch_ref, certified, receipt, status};
use super::{Batch, BatchRef, Receipt, Status};

enum Type {
    /// Another rule, or a type that every reader knows.
    Named(String),
    Numbers(i128, i128),
    NoBytes,
    /// Bytes or characters.
    Sized(Box<Type>, usize, usize),
    Choice(Vec<Type>),
    /// So many of one type as there are.
    List(Box<Type>),
    /// Exactly these, with what each is called; the last ones may be left out, so many.
    Fields(Vec<(String, Type)>, usize),
}

struct Rules {
    rules: BTreeMap<String, Type>,
    used: RefCell<BTreeSet<String>>,
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut rest = line.split(';').next().unwrap().trim();
        while let Some(first) = rest.chars().next() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let len = match first {
                _ if rest.starts_with("h''") => 3,
                '.' if rest.starts_with("..") => 2,
                '.' => 1 + rest[1..].find(|c| !word(c)).unwrap_or(rest.len() - 1),
                _ if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
                _ => 1,
            };
            tokens.push(&rest[..len]);
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> &str {
        self.at += 1;
        self.tokens[self.at - 1]
    }

    fn takes(&mut self, token: &str) -> bool {
        let is_next = self.peek() == Some(token);
        self.at += usize::from(is_next);
        is_next
    }

    fn rules(mut self) -> Rules {
        let mut rules = BTreeMap::new();
        while self.peek().is_some() {
            let name = self.next().to_owned();
            assert!(self.takes("="), "a rule {name:?} without a type");
            assert!(rules.insert(name.clone(), self.choice()).is_none(), "two rules {name}");
        }
        Rules { rules, used: RefCell::default() }
    }

    fn choice(&mut self) -> Type {
        let mut types = vec![self.sized()];
        while self.takes("/") {
            types.push(self.sized());
        }
        if types.len() == 1 { types.remove(0) } else { Type::Choice(types) }
    }

    fn sized(&mut self) -> Type {
        let plain = self.plain();
        if !self.takes(".size") {
            return plain;
        }
        let is_range = self.takes("(");
        let least = self.next().parse().unwrap();
        let most = if self.takes("..") { self.next().parse().unwrap() } else { least };
        assert_eq!(self.takes(")"), is_range);
        Type::Sized(Box::new(plain), least, most)
    }

    fn plain(&mut self) -> Type {
        let token = self.next().to_owned();
        match (token.as_str(), token.parse::<i128>()) {
            ("h''", _) => Type::NoBytes,
            ("[", _) => self.array(),
            (_, Ok(least)) => Type::Numbers(least, if self.takes("..") { self.next().parse().unwrap() } else { least }),
            _ => Type::Named(token),
        }
    }

    fn array(&mut self) -> Type {
        if self.takes("*") {
            let list = Type::List(Box::new(self.choice()));
            assert!(self.takes("]"));
            return list;
        }
        let (mut fields, mut optional) = (Vec::new(), 0);
        while !self.takes("]") {
            let is_optional = self.takes("?");
            assert!(is_optional || optional == 0, "what may be left out stands last");
            optional += usize::from(is_optional);
            let name = self.peek().unwrap().to_owned();
            // Where a field has no name of its own, its type says what it is.
            self.at += if self.tokens.get(self.at + 1) == Some(&":") { 2 } else { 0 };
            fields.push((name, self.choice()));
            self.takes(",");
        }
        Type::Fields(fields, optional)
    }
}

impl Rules {
    fn read() -> Self {
        Parser { tokens: tokens(include_str!("uplink.cddl")), at: 0 }.rules()
    }

    fn rule(&self, name: &str) -> &Type {
        self.used.borrow_mut().insert(name.to_owned());
        self.rules.get(name).unwrap_or_else(|| panic!("no rule {name}"))
    }

    /// Why a value is not of this type.
    fn check(&self, path: &str, kind: &Type, value: &Value) -> Result<(), String> {
        let wrong = || Err(format!("{path} is {value:?}"));
        let is = |fits: bool| if fits { Ok(()) } else { wrong() };
        let number = value.as_integer().map(i128::from);
        match kind {
            Type::Named(name) => match name.as_str() {
                "uint" => is(number.is_some_and(|number| number >= 0)),
                "int" => is(number.is_some()),
                "tstr" => is(value.is_text()),
                "bstr" => is(value.is_bytes()),
                "null" => is(value.is_null()),
                rule => self.check(path, self.rule(rule), value),
            },
            Type::Numbers(least, most) => is(number.is_some_and(|number| (*least..=*most).contains(&number))),
            Type::NoBytes => is(value.as_bytes().is_some_and(Vec::is_empty)),
            Type::Sized(kind, least, most) => {
                self.check(path, kind, value)?;
                let size = value.as_bytes().map(Vec::len).or(value.as_text().map(str::len));
                is(size.is_some_and(|size| (*least..=*most).contains(&size)))
            }
            Type::Choice(kinds) => is(kinds.iter().any(|kind| self.check(path, kind, value).is_ok())),
            Type::List(kind) => {
                let Some(elements) = value.as_array() else { return wrong() };
                elements.iter().try_for_each(|element| self.check(&format!("{path}[]"), kind, element))
            }
            Type::Fields(fields, optional) => {
                let Some(elements) = value.as_array() else { return wrong() };
                if !(fields.len() - optional..=fields.len()).contains(&elements.len()) {
                    return Err(format!("{path} has {} elements instead of {}", elements.len(), fields.len()));
                }
                let mut both = fields.iter().zip(elements);
                both.try_for_each(|((name, kind), element)| self.check(&format!("{path}.{name}"), kind, element))
            }
        }
    }

    /// The same with one more element at the end of every array of fields.
    fn grown(&self, kind: &Type, value: &Value) -> Value {
        match (kind, value) {
            (Type::Named(name), _) if self.rules.contains_key(name) => self.grown(self.rule(name), value),
            (Type::Choice(kinds), _) => {
                let kind = kinds.iter().find(|kind| self.check("", kind, value).is_ok()).unwrap();
                self.grown(kind, value)
            }
            (Type::List(kind), Value::Array(elements)) => {
                Value::Array(elements.iter().map(|element| self.grown(kind, element)).collect())
            }
            (Type::Fields(fields, _), Value::Array(elements)) if elements.len() == fields.len() => {
                let both = fields.iter().zip(elements);
                let mut elements: Vec<Value> = both.map(|((_, kind), element)| self.grown(kind, element)).collect();
                elements.push(Value::Array(vec![Value::Text("of a later version".to_owned()), Value::Null]));
                Value::Array(elements)
            }
            _ => value.clone(),
        }
    }
}

fn value(bytes: &[u8]) -> Value {
    ciborium::from_reader(bytes).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Every message by the name of its rule.
fn messages() -> [(&'static str, Vec<u8>); 4] {
    [
        ("batch", batch().encode()),
        ("batch-ref", batch_ref().encode()),
        ("receipt", receipt().encode()),
        ("status", certified().encode()),
    ]
}

// Negative control: leave an element out of a message, or out of its rule, or give it another type.
#[test]
fn every_message_is_what_the_specification_says() {
    let rules = Rules::read();
    for (name, bytes) in messages() {
        assert_eq!(rules.check(name, rules.rule(name), &value(&bytes)), Ok(()));
    }
    assert_eq!(
        rules.check("status", rules.rule("status"), &value(&status().encode())),
        Ok(()),
        "without what it grew by"
    );
    let unused: Vec<_> = rules.rules.keys().filter(|name| !rules.used.borrow().contains(*name)).collect();
    assert!(unused.is_empty(), "no message says anything of {unused:?}");
}

#[test]
fn a_message_that_differs_from_the_specification_is_found() {
    let rules = Rules::read();
    for (name, bytes) in messages() {
        let Value::Array(fields) = value(&bytes) else { panic!("a message is an array") };
        let check = |fields: Vec<Value>| rules.check(name, rules.rule(name), &Value::Array(fields));
        assert!(check(fields[1..].to_vec()).is_err(), "{name} without its version");
        for index in 0..fields.len() {
            let mut other = fields.clone();
            other[index] = Value::Bool(true);
            assert!(check(other).is_err(), "element {index} of {name} may be anything");
        }
    }
}

// Negative control: leave `drain` out of `wire_array!`, or write the ranges of seqs as tuples.
#[test]
fn every_array_may_grow_at_its_end() {
    let rules = Rules::read();
    let [batch_grown, ref_grown, receipt_grown, status_grown] =
        messages().map(|(name, message)| bytes(&rules.grown(rules.rule(name), &value(&message))));
    assert_eq!(Batch::decode(&batch_grown), Ok(batch()));
    assert_eq!(BatchRef::decode(&ref_grown), Ok(batch_ref()));
    assert_eq!(Receipt::decode(&receipt_grown), Ok(receipt()));
    assert_eq!(Status::decode(&status_grown), Ok(certified()));
}
