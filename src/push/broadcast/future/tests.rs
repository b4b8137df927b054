//! Tests of the hub's hooks, which are not public.

use std::sync::Mutex;

use http::StatusCode;
use tokio::sync::oneshot;

use super::*;
use crate::push::Recorder;

#[tokio::test(start_paused = true)]
async fn hooks_are_called_as_soon_as_an_outcome_is_recorded() {
    let recorder = Recorder::new();
    recorder.answer(StatusCode::GONE);
    recorder.answer(StatusCode::OK);
    let ids: [ConnectionId; 2] = ["AAAAAAAAAAAAAAA=", "BBBBBBBBBBBBBBB="].map(|id| id.parse().unwrap());
    // The source does not end before the hooks have been called.
    let (called, mut both) = oneshot::channel::<()>();
    let (seen, mut called) = (Mutex::new(Vec::new()), Some(called));
    let source = futures_util::stream::iter(ids.clone())
        .chain(futures_util::stream::once(&mut both).filter_map(|_| std::future::ready(None)));
    let report = Pusher::new(recorder)
        .broadcast_stream(source, "x")
        .unwrap()
        .on_gone(|id| seen.lock().unwrap().push(("gone", id.clone())))
        .on_delivered(|id| {
            seen.lock().unwrap().push(("delivered", id.clone()));
            drop(called.take());
        })
        .await;
    assert_eq!((report.delivered, report.gone.len(), report.is_complete), (1, 1, true));
    let [gone, delivered] = ids;
    assert_eq!(*seen.lock().unwrap(), [("gone", gone), ("delivered", delivered)]);
}
