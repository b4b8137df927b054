//! Parsing a route's event, and everything that is decoded on demand.
#![no_main]

use std::collections::BTreeMap;

use lambda_websocket::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let Ok(event) = Event::from_slice(json) else { return };
    let context = event.request_context();
    let _ = (context.principal_id(), context.user_agent(), context.context::<BTreeMap<String, Option<u64>>>());
    let _ = (context.stage_variable("tenant"), context.stage_variables().count());
    let _ = context.iam_identity().map(|identity| (identity.user_arn(), identity.cognito_identity_id(), format!("{identity:?}")));
    assert!(context.raw_json().starts_with('{'));
    match &event {
        Event::Connect(connect) => {
            let _ = (connect.header("host"), connect.query("Auth"), connect.subprotocols().count());
        }
        Event::Message(message) => {
            let _ = (message.body.to_text(), message.body.json::<BTreeMap<String, Vec<u8>>>());
        }
        Event::Disconnect(disconnect) => {
            let _ = (disconnect.status_code(), disconnect.reason());
        }
    }
    let _ = format!("{event:?}");
});
