//! The guide: how to build, test, and operate a WebSocket API with this crate.
//!
//! Start with [Getting started](getting_started). The pages are those of the folder `docs` of the
//! crate, and their programs are compiled.

// The pages link to each other by reference. Here the first definition of a reference counts, which
// is the one of this macro; where the files are read as they are, it is the one at their end.
macro_rules! pages {
    ($($name:ident $file:literal)*) => {$(
        #[doc = "[getting-started]: crate::guide::getting_started"]
        #[doc = "[authorizers]: crate::guide::authorizers"]
        #[doc = "[routes]: crate::guide::routes"]
        #[doc = "[pushing]: crate::guide::pushing"]
        #[doc = "[rooms]: crate::guide::rooms"]
        #[doc = "[queues]: crate::guide::queues"]
        #[doc = "[testing]: crate::guide::testing"]
        #[doc = "[deploying]: crate::guide::deploying"]
        #[doc = "[operating]: crate::guide::operating"]
        #[doc = "[troubleshooting]: crate::guide::troubleshooting"]
        #[doc = "[migrating]: crate::guide::migrating"]
        #[doc = "[comparison]: crate::guide::comparison"]
        #[doc = "[performance]: crate::guide::performance"]
        #[doc = "[conformance]: crate::guide::conformance"]
        #[doc = "[reply-protocol]: crate::guide::reply_protocol"]
        #[doc = ""]
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    )*};
}

pages! {
    getting_started "guide/getting-started.md"
    authorizers "guide/authorizers.md"
    routes "guide/routes.md"
    pushing "guide/pushing.md"
    rooms "guide/rooms.md"
    queues "guide/queues.md"
    testing "guide/testing.md"
    deploying "guide/deploying.md"
    operating "guide/operating.md"
    troubleshooting "guide/troubleshooting.md"
    migrating "guide/migrating.md"
    comparison "guide/comparison.md"
    performance "performance.md"
    conformance "conformance.md"
    reply_protocol "reply-protocol.md"
}
