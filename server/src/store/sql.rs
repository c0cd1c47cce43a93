//! What the queries stand on: arguments, rows, errors, and one way to ask.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, Row};

use super::StoreError;

/// One argument of a query.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    Text(String),
    Maybe(Option<String>),
    Int(i64),
    MaybeInt(Option<i64>),
}

impl Arg {
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Arg {
    fn from(text: Option<String>) -> Self {
        Self::Maybe(text)
    }
}

impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<Option<i64>> for Arg {
    fn from(number: Option<i64>) -> Self {
        Self::MaybeInt(number)
    }
}

impl From<u64> for Arg {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Arg {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

impl From<bool> for Arg {
    fn from(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }
}

/// A statement that grows with its arguments; `$1`, `$2` as both databases take them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sql {
    text: String,
    args: Vec<Arg>,
}

impl Sql {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), args: Vec::new() }
    }

    /// Adds text.
    pub(super) fn and(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl Into<Arg>) -> Self {
        self.push(arg.into());
        self
    }

    /// Adds `(a, b, c)`.
    fn list<A: Into<Arg>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        let mut open = "(";
        for arg in args {
            self.text.push_str(open);
            self.push(arg.into());
            open = ", ";
        }
        self.text.push_str(if open == "(" { "(NULL)" } else { ")" });
        self
    }

    /// Adds `(a, b, c)` to look for any of them. The last is repeated up to one
    /// of a few lengths, so that prepared statements are kept.
    pub(super) fn any_of<A: Into<Arg>>(self, args: impl IntoIterator<Item = A>) -> Self {
        let mut args: Vec<Arg> = args.into_iter().map(Into::into).collect();
        if let Some(last) = args.last().cloned() {
            args.resize(args.len().next_power_of_two(), last);
        }
        self.list(args)
    }

    /// Adds `(a, b), (c, d)`.
    pub(super) fn rows<'a, const N: usize>(
        mut self,
        rows: impl IntoIterator<Item = &'a [Arg; N]>,
    ) -> Self {
        for (index, row) in rows.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self = self.list(row.iter().cloned());
        }
        self
    }

    fn push(&mut self, arg: Arg) {
        self.args.push(arg);
        self.text.push('$');
        self.text.push_str(&self.args.len().to_string());
    }

    fn query(&self) -> Query<'_, Any, AnyArguments<'_>> {
        let mut query = sqlx::query(&self.text);
        for arg in &self.args {
            query = match arg {
                Arg::Text(text) => query.bind(text.as_str()),
                Arg::Maybe(text) => query.bind(text.as_deref()),
                Arg::Int(number) => query.bind(*number),
                Arg::MaybeInt(number) => query.bind(*number),
            };
        }
        query
    }

    /// Runs it and says how many rows it changed.
    pub(super) async fn run(&self, on: &mut AnyConnection) -> Result<u64, StoreError> {
        Ok(self.query().execute(on).await?.rows_affected())
    }

    pub(super) async fn run_in(&self, pool: &AnyPool) -> Result<u64, StoreError> {
        Ok(self.query().execute(pool).await?.rows_affected())
    }

    pub(super) async fn all(&self, on: &mut AnyConnection) -> Result<Vec<AnyRow>, StoreError> {
        Ok(self.query().fetch_all(on).await?)
    }

    pub(super) async fn all_in(&self, pool: &AnyPool) -> Result<Vec<AnyRow>, StoreError> {
        Ok(self.query().fetch_all(pool).await?)
    }

    pub(super) async fn one_in(&self, pool: &AnyPool) -> Result<Option<AnyRow>, StoreError> {
        Ok(self.query().fetch_optional(pool).await?)
    }

    pub(super) async fn one(&self, on: &mut AnyConnection) -> Result<Option<AnyRow>, StoreError> {
        Ok(self.query().fetch_optional(on).await?)
    }
}

/// Reads columns; what isn't as it should be is damage.
pub(super) trait Columns {
    fn text(&self, name: &str) -> Result<String, StoreError>;
    fn maybe_text(&self, name: &str) -> Result<Option<String>, StoreError>;
    fn int(&self, name: &str) -> Result<i64, StoreError>;
    fn maybe_int(&self, name: &str) -> Result<Option<i64>, StoreError>;
    /// A text that is read as something else.
    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, StoreError>;
    /// JSON.
    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, StoreError>;

    fn count(&self, name: &str) -> Result<u64, StoreError> {
        u64::try_from(self.int(name)?).map_err(|_| damaged(name))
    }
}

impl Columns for AnyRow {
    fn text(&self, name: &str) -> Result<String, StoreError> {
        Ok(self.try_get(name)?)
    }

    fn maybe_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(name)?)
    }

    fn int(&self, name: &str) -> Result<i64, StoreError> {
        Ok(self.try_get(name)?)
    }

    fn maybe_int(&self, name: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(name)?)
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.text(name)?.parse().map_err(|_| damaged(name))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        let text: &str = self.try_get(name)?;
        serde_json::from_str(text).map_err(|_| damaged(name))
    }
}

pub(super) fn damaged(name: &str) -> StoreError {
    StoreError::Broken(format!("column {name} holds what it can't: the store is damaged"))
}

/// Codes of SQLite (numbers) and PostgreSQL (five characters).
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string().replace('\n', " ");
        let code = match &error {
            sqlx::Error::Database(error) => error.code().map(|code| code.into_owned()),
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_) => return Self::Broken(text),
            _ => return Self::Unavailable(text),
        };
        let code = code.unwrap_or_default();
        // The low byte of an extended SQLite code is its kind.
        let kind = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff);
        match kind {
            // Corrupt, not a database.
            Some(11 | 26) => Self::Broken(text),
            Some(5 | 6) => Self::Unavailable(format!("locked by another process: {text}")),
            Some(_) => Self::Unavailable(text),
            None if code.starts_with("42") || code.starts_with("22") => Self::Broken(text),
            None => Self::Unavailable(text),
        }
    }
}
