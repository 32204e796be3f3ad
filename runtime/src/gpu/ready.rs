//! Futures that are over when they begin.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

/// The result of a future that is ready at once, as those of native drivers are: errors that a call has caused. None where
/// it is not, as in a browser; such errors arrive later, with those that nobody expects.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
