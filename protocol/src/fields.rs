//! Reads the fields of a JSON object and collects every error with its place.

use std::str::FromStr;

use domain::{Contact, Login};
use serde_json::{Map, Value};

use crate::{FieldError, LIST_MAX, NAME_CHARS_MAX};

/// A cursor over one JSON object. A missing or wrong required field gives the
/// type's default and leaves an error behind, so that one pass finds them all.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: String,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value, at: &str) -> Result<Self, Vec<FieldError>> {
        match value {
            Value::Object(map) => Ok(Self { map, at: at.to_owned(), errors: Vec::new() }),
            _ => {
                Err(vec![FieldError { pointer: at.to_owned(), detail: "must be an object".into() }])
            }
        }
    }

    /// The value, if no field was wrong.
    pub(crate) fn done<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.errors.is_empty() { Ok(value) } else { Err(self.errors) }
    }

    pub(crate) fn wrong(&mut self, name: &str, detail: impl Into<String>) {
        let name = name.replace('~', "~0").replace('/', "~1");
        self.errors
            .push(FieldError { pointer: format!("{}/{name}", self.at), detail: detail.into() });
    }

    /// The field, with `null` and `""` as absent: forms send what was left
    /// empty as the one or the other.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn optional_text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        match self.get(name)? {
            Value::String(text) if text.chars().count() > chars_max => {
                self.wrong(name, format!("must have at most {chars_max} characters"));
                None
            }
            Value::String(text) if text.contains('\0') => {
                self.wrong(name, "must not contain the character U+0000");
                None
            }
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong(name, "must be a string");
                None
            }
        }
    }

    pub(crate) fn text(&mut self, name: &str, chars_max: usize) -> String {
        if !self.has(name) {
            self.wrong(name, "is required");
        }
        self.optional_text(name, chars_max).unwrap_or_default()
    }

    /// Text under one of two names; the first is the one that errors speak of.
    pub(crate) fn text_or(&mut self, name: &str, alias: &str, chars_max: usize) -> String {
        let name = if !self.has(name) && self.has(alias) { alias } else { name };
        self.text(name, chars_max)
    }

    pub(crate) fn name(&mut self, name: &str) -> String {
        self.text(name, NAME_CHARS_MAX)
    }

    pub(crate) fn optional_name(&mut self, name: &str) -> Option<String> {
        self.optional_text(name, NAME_CHARS_MAX)
    }

    /// A field that is read from a string, such as a state, an id or a time.
    pub(crate) fn optional<T: FromStr<Err: ToString>>(&mut self, name: &str) -> Option<T> {
        let text = self.optional_name(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, error.to_string());
                None
            }
        }
    }

    pub(crate) fn required<T: FromStr<Err: ToString>>(&mut self, name: &str) -> Option<T> {
        if !self.has(name) {
            self.wrong(name, "is required");
        }
        self.optional(name)
    }

    /// E.164: a plus sign and 2 to 15 digits.
    pub(crate) fn phone(&mut self, name: &str) -> Option<String> {
        let text = self.optional_name(name)?;
        let digits = text.strip_prefix('+').unwrap_or_default();
        let fits = (2..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        if !fits {
            self.wrong(name, "must be an E.164 number such as +4930123456");
        }
        fits.then_some(text)
    }

    pub(crate) fn optional_list(&mut self, name: &str) -> Option<Vec<String>> {
        let Value::Array(items) = self.get(name)? else {
            self.wrong(name, "must be an array of strings");
            return None;
        };
        if items.len() > LIST_MAX {
            self.wrong(name, format!("must have at most {LIST_MAX} items"));
            return None;
        }
        let mut list: Vec<String> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text)
                    if !text.is_empty()
                        && text.chars().count() <= NAME_CHARS_MAX
                        && !text.contains('\0') =>
                {
                    if !list.iter().any(|known| known == text) {
                        list.push(text.to_owned());
                    }
                }
                _ => self.errors.push(FieldError {
                    pointer: format!("{}/{name}/{index}", self.at),
                    detail: format!("must be a string of 1 to {NAME_CHARS_MAX} characters"),
                }),
            }
        }
        Some(list)
    }

    pub(crate) fn optional_logins(&mut self, name: &str) -> Option<Vec<Login>> {
        let list = self.optional_list(name)?;
        if self.get(name).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            self.wrong(name, "must name at least one agent");
        }
        let mut logins = Vec::with_capacity(list.len());
        for (index, text) in list.into_iter().enumerate() {
            match text.parse() {
                Ok(login) => logins.push(login),
                Err(detail) => self
                    .errors
                    .push(FieldError { pointer: format!("{}/{name}/{index}", self.at), detail }),
            }
        }
        Some(logins)
    }

    /// A nested object, read by `read`; its errors are added to these.
    pub(crate) fn nested<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Fields<'a>) -> T,
    ) -> Option<T> {
        let value = self.get(name)?;
        match Fields::new(value, &format!("{}/{name}", self.at)) {
            Ok(mut fields) => {
                let value = read(&mut fields);
                self.errors.append(&mut fields.errors);
                Some(value)
            }
            Err(mut errors) => {
                self.errors.append(&mut errors);
                None
            }
        }
    }

    pub(crate) fn contact(&mut self, name: &str) -> Option<Contact> {
        self.nested(name, |fields| Contact {
            id: None,
            name: fields.optional_name("name"),
            email: fields.email("email"),
            phone: fields.phone("phone"),
        })
    }

    pub(crate) fn required_contact(&mut self, name: &str) -> Contact {
        if !self.has(name) {
            self.wrong(name, "is required");
        }
        self.contact(name).unwrap_or_default()
    }

    fn email(&mut self, name: &str) -> Option<String> {
        let text = self.optional_name(name)?;
        let fits = text.split_once('@').is_some_and(|(local, host)| {
            !local.is_empty() && !host.is_empty() && !host.contains('@')
        }) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if !fits {
            self.wrong(name, "must be an e-mail address");
        }
        fits.then_some(text)
    }

    pub(crate) fn is_true(&mut self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Bool(true)) => true,
            Some(_) => {
                self.wrong(name, "can only be true");
                false
            }
            None => false,
        }
    }

    pub(crate) fn optional_count(&mut self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        let count = value.as_u64();
        if count.is_none() {
            self.wrong(name, "must be a whole number, 0 or more");
        }
        count
    }

    /// True where the field is there and says `null`.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }
}
