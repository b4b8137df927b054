//! Random tokens at random intervals, over a connection with random faults.

use proptest::prelude::*;

use super::*;

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Delivered),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Late),
        1 => Just(Fate::Unanswered),
        1 => Just(Fate::Throttled),
        1 => Just(Fate::Unavailable),
    ]
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ".{0,12}",
        2 => proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
        1 => (any::<char>(), 0_usize..2000).prop_map(|(character, count)| character.to_string().repeat(count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn chunks_equal_tokens_under_any_sizes_timings_and_faults(
        parts in proptest::collection::vec((token(), 0_u64..120), 0..60),
        fates in proptest::collection::vec(fate(), 0..20),
        latency in 0_u64..60,
        max_latency in 0_u64..200,
        max_frame_bytes in 0_usize..4000,
        gone_after in proptest::option::of(0_usize..30),
        timeout in proptest::option::of(1_u64..4000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut fates = fates;
            if let Some(after) = gone_after {
                fates.resize(after, Fate::Delivered);
                fates.push(Fate::Gone);
            }
            let line = Line { latency: Duration::from_millis(latency), ..Line::new(fates) };
            let whole: String = parts.iter().map(|(token, _)| token.as_str()).collect();
            let count = parts.len() as u64;
            let source = stream::iter(parts).then(|(token, pause)| async move {
                if pause > 20 {
                    sleep(Duration::from_millis(pause)).await;
                }
                token
            });
            let streaming = line.pusher().with_throttle_timeout(Duration::from_secs(60)).stream(&id(), source);
            let streaming = streaming
                .with_max_latency(Duration::from_millis(max_latency))
                .with_max_frame_bytes(max_frame_bytes);
            let report = match timeout {
                Some(timeout) => streaming.with_timeout(Duration::from_millis(timeout)).await,
                None => streaming.await,
            };
            let reader = line.read();
            assert!(whole.starts_with(&reader.text), "what arrives is a beginning");
            assert!(line.frames().iter().all(|frame| frame.len() <= max_frame_bytes.max(256)));
            // A delivered frame whose responses were all lost may not be counted.
            assert!(report.bytes <= reader.text.len() as u64 && report.frames <= reader.next && reader.next <= report.frames + 1);
            match &report.end {
                StreamEnd::Completed => {
                    assert_eq!((&reader.text, reader.done), (&whole, true));
                    assert_eq!((report.tokens, report.bytes), (count, whole.len() as u64));
                }
                StreamEnd::Gone => assert!(gone_after.is_some()),
                StreamEnd::Deadline => assert!(timeout.is_some()),
                end => panic!("{end}: {report}"),
            }
            if let Some(timeout) = timeout {
                assert!(report.elapsed <= Duration::from_millis(timeout + 2), "{report}");
            }
        });
    }
}
