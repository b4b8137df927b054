//! Trace ids in the X-Ray and W3C formats.

use lambda_websocket::event::{InvalidTrace, TraceContext};
use proptest::prelude::*;

fn read(text: &str) -> Result<TraceContext, InvalidTrace> {
    text.parse()
}

#[test]
fn xray_and_w3c_forms_name_the_same_trace() {
    let xray = read("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1").unwrap();
    let w3c = read("00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01").unwrap();
    assert_eq!(xray, w3c);
    assert_eq!(xray.trace_id(), "5759e988bd862e3fe1be46a994272793");
    assert!(xray.is_sampled());
    assert_eq!(xray.traceparent().unwrap(), "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01");
    let lineage = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:a87bd80c:0";
    assert!(!read(lineage).unwrap().is_sampled());
    let root = read("Root=1-5759e988-bd862e3fe1be46a994272793").unwrap();
    assert_eq!((root.traceparent(), root.is_sampled()), (None, false));
    assert_eq!(root.to_string(), "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0");
    let later = read("01-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01-more").unwrap();
    assert_eq!(later, w3c, "a later version may say more");
}

#[test]
fn invalid_trace_is_refused() {
    for text in [
        "",
        "Root",
        "Root=",
        "Root=1",
        "Root=1-5759e988",
        "Root=2-5759e988-bd862e3fe1be46a994272793",
        "Root=1-5759E988-bd862e3fe1be46a994272793",
        "Root=1-5759e988-bd862e3fe1be46a99427279",
        "Root=1-00000000-000000000000000000000000",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=x",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000",
        "Parent=53995c3f42cd8ad8;Sampled=1",
        "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8",
        "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01-more",
        "ff-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
        "00-00000000000000000000000000000000-53995c3f42cd8ad8-01",
        "00-5759e988bd862e3fe1be46a994272793-0000000000000000-01",
        "00-+759e988bd862e3fe1be46a99427279-53995c3f42cd8ad8-01",
        "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-1",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn trace_round_trips_in_both_forms(id in 1_u128.., parent in 1_u64.., sampled: bool) {
        let traceparent = format!("00-{id:032x}-{parent:016x}-{:02x}", u8::from(sampled));
        let trace = read(&traceparent).unwrap();
        prop_assert_eq!(trace.traceparent().unwrap(), traceparent);
        prop_assert_eq!(read(&trace.to_string()).unwrap(), trace);
        let json = serde_json::to_string(&trace).unwrap();
        prop_assert_eq!(serde_json::from_str::<TraceContext>(&json).unwrap(), trace);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = read(&text);
        let _ = read(&format!("Root=1-{text};Parent={text}"));
    }
}
