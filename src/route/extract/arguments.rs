//! The argument lists of handlers, and the functions that take them.

use std::any::type_name;
use std::sync::Arc;

use super::FromEvent;
use crate::event::Event;
use crate::route::Result;
use crate::route::handler::EventKind;

/// The arguments of a handler: a tuple of up to eight.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the arguments of a handler of a `Router<{S}>`",
    note = "a handler takes up to eight arguments, each of which implements `FromEvent<{S}>`"
)]
pub trait Arguments<S>: Sized + Send + 'static {
    #[doc(hidden)]
    fn from_event(event: &Event, state: &Arc<S>) -> impl Future<Output = Result<Self>> + Send;

    /// Returns the name of the first argument that this type of event does not provide.
    #[doc(hidden)]
    fn misfit(kind: EventKind) -> Option<&'static str>;
}

/// An async function or closure with up to eight arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an async function that can be a handler",
    label = "not a handler",
    note = "a handler is an `async fn`, or a closure `|argument: Type| async move {{ … }}` whose arguments have their types written out"
)]
pub trait Function<A>: Send + Sync + 'static {
    /// The future that the function returns.
    type Future: Future;

    #[doc(hidden)]
    fn call(&self, arguments: A) -> Self::Future;
}

macro_rules! arity {
    ($($argument:ident),*) => {
        impl<S: Send + Sync, $($argument: FromEvent<S>),*> Arguments<S> for ($($argument,)*) {
            #[allow(unused_variables, reason = "a handler may have no arguments")]
            async fn from_event(event: &Event, state: &Arc<S>) -> Result<Self> {
                Ok(($($argument::from_event(event, state).await?,)*))
            }

            #[allow(unused_variables, reason = "a handler may have no arguments")]
            fn misfit(kind: EventKind) -> Option<&'static str> {
                $(
                    if !$argument::EVENTS.contains(kind) {
                        return Some(type_name::<$argument>());
                    }
                )*
                None
            }
        }

        impl<F, Fut, $($argument),*> Function<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future,
        {
            type Future = Fut;

            #[allow(non_snake_case, reason = "a variable is named after its type parameter")]
            fn call(&self, ($($argument,)*): ($($argument,)*)) -> Fut {
                self($($argument),*)
            }
        }
    };
}

arity!();
arity!(A1);
arity!(A1, A2);
arity!(A1, A2, A3);
arity!(A1, A2, A3, A4);
arity!(A1, A2, A3, A4, A5);
arity!(A1, A2, A3, A4, A5, A6);
arity!(A1, A2, A3, A4, A5, A6, A7);
arity!(A1, A2, A3, A4, A5, A6, A7, A8);
