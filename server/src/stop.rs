//! The wish to stop a server.

use std::sync::Arc;

use tokio::sync::watch;

/// Asks a server to stop: it answers what is under way, and takes nothing new. Clones ask for the same.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Asks, in any thread; a second time changes nothing.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is asked.
    pub(crate) async fn asked(&self) {
        // The sender lives as long as `self`, so that this cannot fail before.
        let _ = self.0.subscribe().wait_for(|asked| *asked).await;
    }
}
