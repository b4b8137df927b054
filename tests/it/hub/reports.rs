//! Reports as errors, for callers that need complete success.

use lambda_websocket::push::Incomplete;

use super::*;

#[tokio::test]
async fn require_complete_reports_failure_counts_and_causes() {
    let (hub, recorder) = lobby(&["alice-1", "alice-2", "bob-1"]).await;
    let lobby = namespace().group(&group("lobby"));
    // A disconnected member does not count as a failure.
    recorder.hang_up(key("bob-1").id());
    let report = hub.send_to(&lobby, "hello").await.unwrap();
    assert_eq!((report.report.delivered, report.pruned.len()), (2, 1));
    report.require_all().unwrap();
    // As it is used in a route.
    let route = async || -> lambda_websocket::Result<()> {
        recorder.answer(StatusCode::FORBIDDEN);
        hub.send_to(&lobby, "hello").await?.require_all()?;
        Ok(())
    };
    let error = route().await.unwrap_err();
    let expected = "1 of 2 connections were not reached; the first error: not allowed to push to alice-1: the role \
                    needs `execute-api:ManageConnections` on this API and stage, and the endpoint must be this API's: the \
                    response has no error message";
    assert_eq!(error.to_string(), expected);
    recorder.answer(StatusCode::FORBIDDEN);
    let error = hub.send_to(&lobby, "hello").await.unwrap().require_all().unwrap_err();
    assert_eq!(format!("{error:?}"), expected, "what a `main` prints");
    assert_eq!(error.report().report.delivered, 1);
    let report: lambda_websocket::hub::SendReport = error.into_report();
    assert_eq!(report.report.failed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn incomplete_broadcast_reports_failure_count() {
    let ids = || ["a", "b", "c"].map(|id| key(id).id().clone());
    let pusher = |latency| Pusher::new(Delayed(Recorder::new(), latency)).with_concurrency(1);
    let slow = pusher(Duration::from_secs(60)).with_timeout(Duration::from_millis(10));
    let error: Incomplete<_> = slow.broadcast(ids(), "hello").unwrap().await.require_all().unwrap_err();
    assert_eq!(error.to_string(), "3 of 3 connections were not reached; the first error: no response within 10 ms");
    assert_eq!((error.report().failed.len(), error.report().not_tried.len()), (1, 2));
    let report = pusher(Duration::ZERO).broadcast(ids(), "hello").unwrap().await;
    assert_eq!(report.delivered, 3);
    report.require_all().unwrap();
}

#[tokio::test]
async fn incomplete_close_and_sweep_become_errors() {
    let recorder = Recorder::new();
    let hub = Hub::builder(InMemory::new(), Pusher::new(recorder.clone()).without_retries())
        .with_sweep_period(Duration::ZERO)
        .build();
    for id in ["a", "b"] {
        insert(&hub, &opened(id, OLD)).await;
    }
    hub.sweep(&namespace()).await.require_all().unwrap();
    recorder.answer(StatusCode::INTERNAL_SERVER_ERROR);
    let error = hub.sweep(&namespace()).await.require_all().unwrap_err().to_string();
    assert!(
        error.starts_with("1 of 2 connections could not be checked; the first error: API Gateway failed with"),
        "{error}"
    );
    recorder.answer(StatusCode::INTERNAL_SERVER_ERROR);
    let error = hub.close(&namespace().everyone()).await.require_all().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("1 of 2 connections were not closed; the first error: API Gateway failed with status"),
        "{text}"
    );
    assert_eq!(error.into_report().closed.len(), 1);
    hub.close(&namespace().everyone()).await.require_all().unwrap();
}
