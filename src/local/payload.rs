//! The events that functions receive, with exactly the members that they have on AWS.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::authorizer::RouteArn;
use crate::event::{ApiId, ConnectionId, MessageId, RequestId, Stage};

/// A client's request to open a connection.
#[derive(Debug, Clone)]
pub(super) struct Handshake {
    pub(super) headers: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) source_ip: IpAddr,
    pub(super) source_port: u16,
    pub(super) port: u16,
}

impl Handshake {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the subprotocols that the client offers.
    pub(super) fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"))
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
    }
}

/// The properties of a connection that never change.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) api_id: ApiId,
    pub(super) stage: Stage,
    pub(super) connection_id: ConnectionId,
    pub(super) domain_name: String,
    pub(super) source_ip: IpAddr,
    pub(super) user_agent: Option<String>,
    pub(super) connected_at: SystemTime,
}

/// The members of `requestContext`, in the order in which API Gateway writes them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContextJson<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a MessageId>,
    event_type: &'a str,
    extended_request_id: &'a RequestId,
    request_time: String,
    message_direction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a Stage,
    connected_at: u64,
    request_time_epoch: u64,
    identity: IdentityJson<'a>,
    request_id: &'a RequestId,
    domain_name: &'a str,
    connection_id: &'a ConnectionId,
    api_id: &'a ApiId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdentityJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: IpAddr,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method_arn: Option<&'a RouteArn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<BTreeMap<&'a str, Vec<&'a str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<BTreeMap<&'a str, Vec<&'a str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_variables: Option<BTreeMap<&'a str, &'a str>>,
    request_context: ContextJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_base64_encoded: Option<bool>,
}

/// The parts that all events share.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) origin: &'a Origin,
    pub(super) request_id: &'a RequestId,
    pub(super) now: SystemTime,
    pub(super) authorizer: Option<&'a Map<String, Value>>,
    pub(super) stage_variables: &'a [(String, String)],
}

impl<'a> Parts<'a> {
    /// Builds the event of a REQUEST authorizer (AUT-2).
    pub(super) fn authorize(self, handshake: &Handshake, trace_id: &str, method_arn: &RouteArn) -> Vec<u8> {
        // EVT-11
        let mut headers = sent_headers(handshake, trace_id, &["connection", "content-length"]);
        headers.push(("Connection".to_owned(), "upgrade".to_owned()));
        headers.push(("content-length".to_owned(), "0".to_owned()));
        to_json(&EventJson {
            kind: Some("REQUEST"),
            method_arn: Some(method_arn),
            headers: Some(last_values(pairs(&headers))),
            multi_value_headers: Some(all_values(pairs(&headers))),
            query_string_parameters: Some(last_values(pairs(&handshake.query))),
            multi_value_query_string_parameters: Some(all_values(pairs(&handshake.query))),
            stage_variables: Some(last_values(pairs(self.stage_variables))),
            body: None,
            is_base64_encoded: None,
            request_context: ContextJson { authorizer: None, ..self.context("$connect", "CONNECT") },
        })
    }

    /// Builds the `$connect` event (EVT-3).
    ///
    /// It always has headers, has query maps only if the URL has a query, and has no body.
    pub(super) fn connect(self, handshake: &Handshake, trace_id: &str) -> Vec<u8> {
        let headers = sent_headers(handshake, trace_id, &["connection", "upgrade", "content-length"]);
        let query = (!handshake.query.is_empty()).then_some(&handshake.query);
        to_json(&EventJson {
            headers: Some(last_values(pairs(&headers))),
            multi_value_headers: Some(all_values(pairs(&headers))),
            query_string_parameters: query.map(|query| last_values(pairs(query))),
            multi_value_query_string_parameters: query.map(|query| all_values(pairs(query))),
            ..self.event("$connect", "CONNECT")
        })
    }

    /// Builds the event of a message (EVT-2).
    ///
    /// It has a body and a message id, but no headers and no query.
    pub(super) fn message(self, route_key: &str, message_id: &MessageId, body: &str) -> Vec<u8> {
        let mut event = self.event(route_key, "MESSAGE");
        event.request_context.message_id = Some(message_id);
        event.body = Some(body);
        to_json(&event)
    }

    /// Builds the `$disconnect` event (EVT-4), with four headers, a code, and a reason.
    pub(super) fn disconnect(self, code: u16, reason: &str) -> Vec<u8> {
        let headers =
            [("Host", self.origin.domain_name.as_str()), ("x-api-key", ""), ("X-Forwarded-For", ""), ("x-restapi", "")];
        let mut event = self.event("$disconnect", "DISCONNECT");
        event.headers = Some(headers.into_iter().collect());
        event.multi_value_headers = Some(headers.into_iter().map(|(name, value)| (name, vec![value])).collect());
        event.request_context.disconnect_status_code = Some(code);
        event.request_context.disconnect_reason = Some(reason);
        to_json(&event)
    }

    fn event(self, route_key: &'a str, event_type: &'a str) -> EventJson<'a> {
        EventJson {
            kind: None,
            method_arn: None,
            headers: None,
            multi_value_headers: None,
            query_string_parameters: None,
            multi_value_query_string_parameters: None,
            // EVT-16: present if the stage has any.
            stage_variables: (!self.stage_variables.is_empty()).then(|| last_values(pairs(self.stage_variables))),
            request_context: self.context(route_key, event_type),
            body: None,
            is_base64_encoded: Some(false),
        }
    }

    fn context(self, route_key: &'a str, event_type: &'a str) -> ContextJson<'a> {
        let origin = self.origin;
        ContextJson {
            route_key,
            disconnect_status_code: None,
            authorizer: self.authorizer,
            message_id: None,
            event_type,
            extended_request_id: self.request_id,
            request_time: log_time(self.now),
            message_direction: "IN",
            disconnect_reason: None,
            stage: &origin.stage,
            connected_at: milliseconds(origin.connected_at),
            request_time_epoch: milliseconds(self.now),
            identity: IdentityJson { user_agent: origin.user_agent.as_deref(), source_ip: origin.source_ip },
            request_id: self.request_id,
            domain_name: &origin.domain_name,
            connection_id: &origin.connection_id,
            api_id: &origin.api_id,
        }
    }
}

/// Returns the client's headers and those that the gateway adds (EVT-11).
fn sent_headers(handshake: &Handshake, trace_id: &str, omitted: &[&str]) -> Vec<(String, String)> {
    let sent = handshake.headers.iter().filter(|(name, _)| !omitted.iter().any(|omit| name.eq_ignore_ascii_case(omit)));
    let added = [
        ("X-Amzn-Trace-Id", trace_id.to_owned()),
        ("X-Forwarded-For", handshake.source_ip.to_string()),
        ("X-Forwarded-Port", handshake.port.to_string()),
        ("X-Forwarded-Proto", "http".to_owned()),
    ];
    sent.cloned().chain(added.map(|(name, value)| (name.to_owned(), value))).collect()
}

fn pairs(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn last_values<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, &'a str> {
    pairs.collect()
}

fn all_values<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in pairs {
        all.entry(name).or_default().push(value);
    }
    all
}

/// Serializes an event as JSON.
///
/// These structs always serialize; an error would only yield an empty payload.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

/// Formats a time as `dd/Mon/yyyy:HH:mm:ss +0000` (EVT-6).
fn log_time(time: SystemTime) -> String {
    timestamp(time).strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// Formats a time as `2022-01-25T18:50:04.673Z` (MGT-2).
pub(super) fn iso_time(time: SystemTime) -> String {
    timestamp(time).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
