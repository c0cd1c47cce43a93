//! `POST /external/CHANNEL`: decode, authorize, publish, answer.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::Channel;
use futures::StreamExt as _;
use protocol::{Accepted, Problem, Stage, names};
use serde::Serialize;
use tokio::time::timeout;

use super::Api;
use super::body::{self, Media};
use super::decode::{Batch, Posted, Reader, idempotency_key};
use super::openapi::{ChatBody, Posts, TicketsBody, VoiceBody};
use super::signature;

use crate::broker::{BrokerError, BrokerState, Message};
use crate::problem::Refused;
use crate::store::Integration;
use crate::trace;

/// Interactions of one array that are published at the same time.
const CONCURRENT_MAX: usize = 64;

#[utoipa::path(post, path = "/external/voice", tag = "events", request_body(content(
    (VoiceBody = "application/json"),
    (super::wire::CloudEvent = "application/cloudevents+json"),
    (super::wire::CloudEvents = "application/cloudevents-batch+json"),
)), params(super::openapi::PostHeaders), responses(Posts), security(("key" = ["voice"])))]
/// Tells of calls.
pub(super) async fn voice(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    post(&api, Channel::Voice, &headers, body).await
}

#[utoipa::path(post, path = "/external/chat", tag = "events", request_body(content(
    (ChatBody = "application/json"),
    (super::wire::CloudEvent = "application/cloudevents+json"),
    (super::wire::CloudEvents = "application/cloudevents-batch+json"),
)), params(super::openapi::PostHeaders), responses(Posts), security(("key" = ["chat"])))]
/// Tells of chats.
pub(super) async fn chat(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    post(&api, Channel::Chat, &headers, body).await
}

#[utoipa::path(post, path = "/external/tickets", tag = "events", request_body(content(
    (TicketsBody = "application/json"),
    (super::wire::CloudEvent = "application/cloudevents+json"),
    (super::wire::CloudEvents = "application/cloudevents-batch+json"),
)), params(super::openapi::PostHeaders), responses(Posts), security(("key" = ["tickets"])))]
/// Tells of tickets.
pub(super) async fn tickets(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    post(&api, Channel::Tickets, &headers, body).await
}

async fn post(api: &Api, channel: Channel, headers: &HeaderMap, body: Body) -> Response {
    let mut body = body.into_data_stream();
    match accept(api, channel, headers, &mut body).await {
        Ok(response) => response,
        Err(refused) => {
            // Who expects 100 is still waiting, and sends nothing when refused.
            if refused.status != StatusCode::REQUEST_TIMEOUT
                && !headers.contains_key(header::EXPECT)
            {
                body::discard(&mut body).await;
            }
            refused.into_response()
        }
    }
}

async fn accept(
    api: &Api,
    channel: Channel,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<Response, Refused> {
    let integration = api.keys.integration(headers).await?;
    if !integration.scopes.contains(&channel) {
        let detail = format!("this key has no scope {channel}");
        return Err(Refused::new(StatusCode::FORBIDDEN, detail));
    }
    let id = integration.id;
    let _place =
        api.rates.enter(id).map_err(|wait| Refused::too_many("too many requests at once", wait))?;
    let too_fast = |wait| Refused::too_many("too many events a second", wait);
    api.rates.take(id, 1).map_err(too_fast)?;
    let media = Media::of(headers)?;
    let key = idempotency_key(headers)?;
    let (body, _large) = body::read(body, media, api.config.body_timeout, &api.large).await?;
    let (hash, required) = (&integration.key_hash, integration.signature_required);
    signature::verify(headers, &body, hash, required, api.clock.now())
        .map_err(|error| Refused::unauthenticated(error.to_string()))?;
    let reader = Reader {
        channel,
        integration: &integration.name,
        partitions: api.broker.config().partitions,
        idempotency_key: key,
    };
    let given = headers.get(names::TRACEPARENT).and_then(|value| value.to_str().ok());
    let sender = Sender { api, integration: &integration, trace: given };
    match reader.read(media, headers, &body)? {
        Batch::One(posted) => sender.send(posted).await.map(|accepted| one(&accepted)),
        Batch::Many(events) => {
            api.rates.take(id, events.len() - 1).map_err(too_fast)?;
            many(sender.send_all(events).await)
        }
    }
}

struct Sender<'a> {
    api: &'a Api,
    integration: &'a Integration,
    trace: Option<&'a str>,
}

impl Sender<'_> {
    /// Different interactions at the same time, the events of one in order.
    /// After one that the broker didn't take, the later ones of its
    /// interaction are not tried.
    async fn send_all(
        &self,
        events: Vec<Result<Posted, Refused>>,
    ) -> Vec<Result<Accepted, Refused>> {
        let count = events.len();
        let mut results: BTreeMap<usize, Result<Accepted, Refused>> = BTreeMap::new();
        let mut groups: Vec<Vec<(usize, Posted)>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (index, event) in events.into_iter().enumerate() {
            match event {
                Ok(posted) => {
                    let place = *places.entry(posted.key.clone()).or_insert(groups.len());
                    if place == groups.len() {
                        groups.push(Vec::new());
                    }
                    groups[place].push((index, posted));
                }
                Err(refused) => {
                    results.insert(index, Err(refused));
                }
            }
        }
        let sent = futures::stream::iter(groups.into_iter().map(|group| self.send_group(group)))
            .buffer_unordered(CONCURRENT_MAX)
            .concat();
        results.extend(sent.await);
        debug_assert_eq!(results.len(), count);
        results.into_values().collect()
    }

    async fn send_group(
        &self,
        group: Vec<(usize, Posted)>,
    ) -> Vec<(usize, Result<Accepted, Refused>)> {
        let mut results = Vec::with_capacity(group.len());
        let mut failed: Option<Refused> = None;
        for (index, posted) in group {
            let result = match &failed {
                Some(refused) => Err(refused.clone()),
                None => self.send(posted).await,
            };
            failed = result.as_ref().err().cloned();
            results.push((index, result));
        }
        results
    }

    /// Returns when the broker has confirmed that it holds the event.
    async fn send(&self, posted: Posted) -> Result<Accepted, Refused> {
        let (api, id, to) = (self.api, posted.id, posted.to);
        let sent = match &*api.broker.state().borrow() {
            BrokerState::Up => Ok(()),
            BrokerState::Blocked(why) => Err(BrokerError::Blocked(why.clone())),
            BrokerState::Down(why) => Err(BrokerError::Down(why.clone())),
        };
        if let Err(error) = sent {
            return Err(Refused::broker(&error));
        }
        api.receipts.accepted(id.0, &self.integration.name);
        let confirmed =
            timeout(api.config.publish_timeout, api.broker.publish(to, self.message(posted)));
        let outcome = confirmed
            .await
            .unwrap_or_else(|_| Err(BrokerError::Down("no confirm in time".to_owned())));
        if let Err(error) = outcome {
            match &error {
                // The broker's room tells of these as they begin and end.
                BrokerError::Down(_) | BrokerError::Blocked(_) => {
                    tracing::debug!(partition = %to, %error, "event not accepted");
                }
                _ => tracing::warn!(partition = %to, %error, "event not accepted"),
            }
            return Err(Refused::broker(&error));
        }
        api.receipts.reached(id.0, Stage::Brokered);
        let status_url = format!("{}/external/events/{id}", api.config.public_url);
        Ok(Accepted { id, channel: to.channel, status_url })
    }

    fn message(&self, posted: Posted) -> Message {
        let now = self.api.clock.now();
        let trace = trace::carry(self.trace.or(posted.trace.as_deref()));
        let headers = [
            (names::X_CHANNEL, posted.to.channel.to_string()),
            (names::X_KEY, posted.key),
            (names::X_ACCEPTED_AT, now.to_string()),
            (names::TRACEPARENT, trace),
        ];
        Message {
            id: posted.id.to_string(),
            kind: posted.kind,
            app_id: self.integration.name.clone(),
            at: now,
            headers: headers.into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
            reply_to: None,
            body: posted.body,
        }
    }
}

fn one(accepted: &Accepted) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(accepted)).into_response();
    if let Ok(place) = HeaderValue::from_str(&accepted.status_url) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item {
    Accepted(Accepted),
    Problem(Problem),
}

/// All accepted: 202. None, all for the same status: one problem. Else 207.
fn many(results: Vec<Result<Accepted, Refused>>) -> Result<Response, Refused> {
    let refused: Vec<&Refused> =
        results.iter().filter_map(|result| result.as_ref().err()).collect();
    if let [first, rest @ ..] = refused.as_slice()
        && refused.len() == results.len()
        && rest.iter().all(|other| other.status == first.status)
    {
        return Err(together(&refused, first));
    }
    let status = if refused.is_empty() { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let retry_after = refused.iter().filter_map(|refused| refused.retry_after_secs()).max();
    let items: Vec<Item> = results
        .into_iter()
        .map(|result| match result {
            Ok(accepted) => Item::Accepted(accepted),
            Err(refused) => Item::Problem(refused.problem()),
        })
        .collect();
    let mut response = (status, Json(items)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

fn together(refused: &[&Refused], first: &Refused) -> Refused {
    let retry_after = refused.iter().filter_map(|refused| refused.retry_after).max();
    if first.errors.is_empty() {
        return Refused { retry_after, ..first.clone() };
    }
    let errors = refused.iter().flat_map(|refused| refused.errors.iter().cloned()).collect();
    Refused { retry_after, ..Refused::shape(errors) }
}
