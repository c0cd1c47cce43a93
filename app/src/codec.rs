//! JSON as pages and server functions pass it: written by serde, read by
//! [`FromJson`], which is far less code for the browser to load.

use domain::FromJson;
use leptos::prelude::*;
use leptos::server::codee::{Decoder, Encoder};
use leptos::server_fn::codec::{Encoding, FromReq, IntoReq, Post, PostUrl};
use leptos::server_fn::request::{ClientReq, Req};
use leptos::server_fn::{self, ContentType, Decodes, Encodes, Format, FormatType};
use leptos_router::location::Url;
use serde::Serialize;
use serde_json::Value;

use crate::api::{CreateFirstAdmin, SignIn, SignOut};
use crate::desk::DeskError;

/// What was sent is something else.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("unexpected JSON")]
pub struct Unexpected;

/// The encoding.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

/// An answer in it.
pub type Answer = Post<Plain>;

impl ContentType for Plain {
    const CONTENT_TYPE: &'static str = "application/json";
}

impl FormatType for Plain {
    const FORMAT_TYPE: Format = Format::Text;
}

impl<T: Serialize> Encodes<T> for Plain {
    type Error = serde_json::Error;

    fn encode(value: &T) -> Result<server_fn::Bytes, serde_json::Error> {
        serde_json::to_vec(value).map(server_fn::Bytes::from)
    }
}

impl<T: FromJson> Decodes<T> for Plain {
    type Error = Unexpected;

    fn decode(bytes: server_fn::Bytes) -> Result<T, Unexpected> {
        std::str::from_utf8(&bytes).ok().and_then(T::from_text).ok_or(Unexpected)
    }
}

/// What breaks on the way between page and server is told as "can't answer right now".
impl leptos::server_fn::error::FromServerFnError for DeskError {
    type Encoder = Plain;

    fn from_server_fn_error(error: leptos::server_fn::error::ServerFnErrorErr) -> Self {
        use leptos::server_fn::error::ServerFnErrorErr as Broken;
        match error {
            Broken::Args(detail) | Broken::MissingArg(detail) => Self::Invalid(detail),
            _ => Self::Unavailable,
        }
    }
}

impl<T: Serialize> Encoder<T> for Plain {
    type Error = serde_json::Error;
    type Encoded = String;

    fn encode(value: &T) -> Result<String, serde_json::Error> {
        serde_json::to_string(value)
    }
}

impl<T: FromJson> Decoder<T> for Plain {
    type Error = Unexpected;
    type Encoded = str;

    fn decode(text: &str) -> Result<T, Unexpected> {
        T::from_text(text).ok_or(Unexpected)
    }
}

/// What a page is made of: read on the server before the page is sent, and by
/// the browser from the page.
pub(crate) fn with_page<T, Fut>(
    read: impl Fn() -> Fut + Send + Sync + 'static,
) -> Resource<T, Plain>
where
    T: FromJson + Serialize + Send + Sync + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    Resource::new_with_options(|| (), move |()| read(), true)
}

/// Arguments as the body of a plain form, which works before the page is alive.
#[derive(Clone, Copy, Debug)]
pub struct Form;

impl ContentType for Form {
    const CONTENT_TYPE: &'static str = PostUrl::CONTENT_TYPE;
}

impl Encoding for Form {
    const METHOD: http::Method = PostUrl::METHOD;
}

/// Arguments that are texts, written as a form does.
fn form_body(arguments: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(arguments) else { return String::new() };
    let pair = |(name, value): (String, Value)| {
        format!("{name}={}", Url::escape(value.as_str().unwrap_or_default()))
    };
    fields.into_iter().map(pair).collect::<Vec<_>>().join("&")
}

macro_rules! forms {
    ($($type:ident),+) => {$(
        impl<R: ClientReq<DeskError>> IntoReq<Form, R, DeskError> for $type {
            fn into_req(self, path: &str, accepts: &str) -> Result<R, DeskError> {
                R::try_new_post(path, Form::CONTENT_TYPE, accepts, form_body(&self))
            }
        }

        impl<R: Req<DeskError> + Send + 'static> FromReq<Form, R, DeskError> for $type {
            async fn from_req(request: R) -> Result<Self, DeskError> {
                <Self as FromReq<PostUrl, R, DeskError>>::from_req(request).await
            }
        }
    )+};
}

forms!(CreateFirstAdmin, SignIn, SignOut);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use domain::{Channel, Timestamp};
    use leptos::server_fn::{Decodes, Encodes};
    use protocol::{Cursor, InteractionList, Me, Principal};

    use super::Plain;
    use crate::api::{Boot, Door};
    use crate::desk::DeskError;

    fn comes_back<T>(value: &T)
    where
        T: domain::FromJson + serde::Serialize + PartialEq + Debug,
    {
        let sent = <Plain as Encodes<T>>::encode(value).expect("json");
        let read = <Plain as Decodes<T>>::decode(sent).expect("what was sent");
        assert_eq!(&read, value);
    }

    /// What they carry is held against serde in protocol/tests/browser.rs.
    #[test]
    fn what_pages_and_server_functions_pass_comes_back_the_same() {
        for error in [
            DeskError::SignedOut,
            DeskError::Forbidden,
            DeskError::Invalid("\"no\"".into()),
            DeskError::Unavailable,
        ] {
            // One that isn't among these doesn't compile.
            match &error {
                DeskError::SignedOut
                | DeskError::Forbidden
                | DeskError::Invalid(_)
                | DeskError::Unavailable => comes_back(&error),
            }
            comes_back(&Err::<(), _>(error));
        }
        comes_back(&Ok::<_, DeskError>(()));
        for (needs_first_admin, signed_in) in [(true, false), (false, true)] {
            comes_back(&Door { needs_first_admin, signed_in });
        }
        let list = |epoch: &str| InteractionList {
            interactions: Vec::new(),
            next_cursor: None,
            streams: BTreeMap::from([(Channel::Chat, Cursor { epoch: epoch.into(), offset: 7 })]),
        };
        let me = Me {
            principal: Principal {
                id: uuid::Uuid::nil(),
                login: "ana".parse().expect("a login"),
                name: "Ana".into(),
                role: domain::Role::Agent,
            },
            aggregators: vec!["ws://127.0.0.1:4001/ws/all".into()],
        };
        for closed in [None, Some(list("closed"))] {
            comes_back(&Ok::<_, DeskError>(Some(Boot {
                me: me.clone(),
                agents: Vec::new(),
                open: list("open"),
                closed,
                detail: None,
                now: Timestamp::from_millis(7),
            })));
        }
        comes_back(&Ok::<Option<Boot>, DeskError>(None));
    }
}
