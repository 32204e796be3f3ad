//! `handmill serve` under test, and a small HTTP client for it.

use super::{Answer, Handmill, Running, wait_for};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A server that runs. A test that fails ends it.
pub struct Serving {
    /// None once somebody waits for its end.
    running: Option<Running>,
    pub address: String,
    stderr: Arc<Mutex<String>>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The head's lines, in lower case.
    pub head: String,
    pub body: String,
}

impl Serving {
    /// Starts it on a free port and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_as(Handmill::new(), args)
    }

    pub fn start_as(handmill: Handmill, args: &[&str]) -> Self {
        let mut running = handmill.start(&[&["serve"], args, &["--port", "0", "--backend", "cpu"]].concat());
        let stderr = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(running.child.stderr.take().expect("piped"));
        thread::spawn({
            let stderr = stderr.clone();
            move || lines.lines().map_while(Result::ok).for_each(|line| *stderr.lock().unwrap() += &(line + "\n"))
        });
        let found = || {
            stderr.lock().unwrap().lines().find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned))
        };
        wait_for(|| found().is_some());
        let address = found().expect("waited for");
        Self { running: Some(running), address, stderr }
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// A connection with a request on it.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let len = body.len();
        let host = if headers.starts_with("host: ") { "" } else { &format!("host: {}\r\n", self.address) };
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
        );
        // A server that refuses a request may close the connection before it has read all of it.
        let _ = stream.write_all(request.as_bytes());
        stream
    }

    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        let mut bytes = Vec::new();
        let _ = self.send(method, path, headers, body).read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let head = head.to_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_owned() };
        Response { status, head, body }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.request("GET", path, "", "").ok()
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, "", &body.to_string()).ok()
    }

    /// Posts what is wrong: the status and the error.
    #[track_caller]
    pub fn refused(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request("POST", path, "", &body.to_string());
        let json: Value = serde_json::from_str(&response.body).expect("JSON");
        assert!(json["error"]["message"].is_string() && json["error"]["type"].is_string(), "{body}: {json}");
        (response.status, json["error"].clone())
    }

    /// Posts, and returns the events of the stream that comes back, without the last one, `[DONE]`.
    #[track_caller]
    pub fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        self.unnamed(path, body, Some("data: [DONE]"))
    }

    /// As [`Serving::stream`], of a stream that just ends.
    #[track_caller]
    pub fn open_stream(&self, path: &str, body: &Value) -> Vec<Value> {
        self.unnamed(path, body, None)
    }

    #[track_caller]
    fn unnamed(&self, path: &str, body: &Value, last: Option<&str>) -> Vec<Value> {
        let response = self.request("POST", path, "", &body.to_string());
        assert!(response.status == 200 && response.head.contains("text/event-stream"), "{response:?}");
        let mut events: Vec<&str> = response.body.split("\n\n").filter(|event| !event.is_empty()).collect();
        if last.is_some() {
            assert_eq!(events.pop(), last, "{response:?}");
        }
        let json = |event: &&str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
        events.iter().filter(|event| !event.starts_with(':')).map(json).collect()
    }

    /// Posts, and returns the events of a stream whose events have names: those of their types.
    #[track_caller]
    pub fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.request("POST", path, "", &body.to_string());
        assert!(response.status == 200 && response.head.contains("text/event-stream"), "{response:?}");
        let json = |event: &str| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let json: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), json["type"].as_str(), "{event}");
            json
        };
        response.body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')).map(json).collect()
    }

    /// Posts, and returns the lines of a stream of JSON.
    #[track_caller]
    pub fn lines(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.request("POST", path, "", &body.to_string());
        assert!(response.status == 200 && response.head.contains("application/x-ndjson"), "{response:?}");
        response.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Asks it to stop, as a terminal does.
    pub fn interrupt(&self) {
        self.running.as_ref().expect("it runs").interrupt();
    }

    #[cfg(not(windows))]
    pub fn signal(&self, name: &str) {
        self.running.as_ref().expect("it runs").signal(name);
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Answer {
        self.running.take().expect("it runs").wait()
    }

    /// Stops it and waits for its end.
    pub fn stop(self) {
        self.interrupt();
        self.wait().assert_ok();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            // It may have ended already.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Response {
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// A body that came in chunks; the end of one that broke off is missing.
fn joined(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        whole += chunk;
        body = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}
