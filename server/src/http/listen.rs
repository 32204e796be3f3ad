//! Connections: how many, how long they may be silent, and how they end.

use std::{net::TcpListener, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};

use super::App;
use crate::{Error, Log, Stop};

/// Time that connections have beyond that of their requests, to send what they still have.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted, as where the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on `host` and `port`; port 0 is a free one.
///
/// # Errors
/// An address that is not this machine's or is in use.
pub fn bind(host: &str, port: u16) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind((host, port)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| Error::Bind { address: format!("{host}:{port}"), source })
}

/// Serves connections until `stop`, and until they end after it.
pub(super) async fn run(listener: TcpListener, router: Router, app: &App, stop: &Stop) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Threads)?;
    let permits = Arc::new(Semaphore::new(app.options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let asked = asked(app, stop)?;
    tokio::pin!(asked);
    loop {
        let accept = async {
            // Further connections wait in the system's queue.
            let permit = permits.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            (accepted, permit) = accept => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), app.options.head_timeout, stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            () = &mut asked => break,
        }
    }
    stop.ask();
    (app.options.log)(&Log::Draining);
    app.scheduler.drain(app.options.drain);
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // Whoever does not read what it asked for is not waited for.
    let _ = tokio::time::timeout(app.options.drain.saturating_add(LAST_WORDS), all).await;
    connections.shutdown().await;
    Ok(())
}

/// Waits until `stop` is asked, or the system asks.
#[cfg(unix)]
fn asked(app: &App, stop: &Stop) -> Result<impl Future<Output = ()> + use<>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate =
        app.options.on_sigterm.then(|| signal(SignalKind::terminate())).transpose().map_err(Error::Threads)?;
    let stop = stop.clone();
    Ok(async move {
        match terminate {
            Some(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                () = stop.asked() => {}
            },
            None => stop.asked().await,
        }
    })
}

#[cfg(not(unix))]
fn asked(_: &App, stop: &Stop) -> Result<impl Future<Output = ()> + use<>, Error> {
    let stop = stop.clone();
    Ok(async move { stop.asked().await })
}

/// Serves one connection; once `stop` is asked it ends behind the request that it has.
async fn connection(stream: TcpStream, router: Router, idle: Duration, stop: Stop) {
    // Each token is a small packet, which must not wait for the next.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(idle);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    tokio::select! {
        // An error of a connection is its client's: it left, or sent what is no HTTP.
        _ = &mut served => return,
        () = stop.asked() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
