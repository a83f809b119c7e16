//! One HTTP/1.1 connection with reused buffers: requests are appended, answers are borrowed.
//!
//! In: request bytes in [`Connection::out`]. Out: one [`Answer`] per request, in order.
//! Invariant: writing and reading go on together, so a pipeline of large bodies cannot lock up.
//! After an error the connection is of no more use. Bodies need `Content-Length`; HTTPS, chunked
//! bodies and redirects are not spoken.

use std::{
    future::poll_fn,
    io::{self, Write as _},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Longest answer head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer, at most.
const HEADERS_MAX: usize = 64;
/// Longest answer body: nothing this client asks for comes near.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Room that a read has at least.
const READ_BYTES: usize = 16 << 10;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("connect: {0}")]
    Connect(io::ErrorKind),
    #[error("connection: {0}")]
    Io(io::ErrorKind),
    #[error("connection closed by the server")]
    Closed,
    #[error("answer is not HTTP/1.1 with a content length")]
    Malformed,
}

/// One answer; lives until the next is asked for.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    head: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(self.head).ok()?;
        let header = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name))?;
        Some(header.value)
    }
}

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    /// Initialised to its length; `filled` bytes of it were received.
    input: Vec<u8>,
    filled: usize,
    /// Where the next answer begins.
    next: usize,
    closing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    head_bytes: usize,
    body_bytes: usize,
    closing: bool,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self, WireError> {
        let connect = |error: io::Error| WireError::Connect(error.kind());
        let stream = TcpStream::connect(addr).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        Ok(Self {
            stream,
            out: Vec::new(),
            sent: 0,
            input: vec![0; READ_BYTES * 2],
            filled: 0,
            next: 0,
            closing: false,
        })
    }

    /// Where requests are appended; they go out with the next [`Self::answer`].
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        &mut self.out
    }

    /// True when the server said that no further answer comes on this connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// The answer to the oldest request without one. Not cancel-safe: drop the connection then.
    pub(crate) async fn answer(&mut self) -> Result<Answer<'_>, WireError> {
        if self.closing {
            return Err(WireError::Closed);
        }
        if self.next == self.filled {
            (self.next, self.filled) = (0, 0);
        }
        let head = loop {
            if let Some(head) = parse(&self.input[self.next..self.filled])? {
                break head;
            }
            self.make_room(READ_BYTES);
            self.pump().await?;
        };
        let whole = head.head_bytes + head.body_bytes;
        self.make_room(whole.saturating_sub(self.filled - self.next));
        while self.filled - self.next < whole {
            self.pump().await?;
        }
        self.closing = head.closing;
        let start = self.next;
        self.next += whole;
        let (head_bytes, body) = self.input[start..start + whole].split_at(head.head_bytes);
        Ok(Answer { status: head.status, body, head: head_bytes })
    }

    /// Makes room for `bytes` after what is filled.
    fn make_room(&mut self, bytes: usize) {
        if self.input.len() - self.filled < bytes {
            self.input.copy_within(self.next..self.filled, 0);
            self.filled -= self.next;
            self.next = 0;
            if self.input.len() - self.filled < bytes {
                self.input.resize(self.filled + bytes, 0);
            }
        }
    }

    /// Sends what is unsent and receives at least one byte.
    async fn pump(&mut self) -> Result<(), WireError> {
        let received = poll_fn(|cx| self.poll_pump(cx)).await;
        match received.map_err(|error| WireError::Io(error.kind()))? {
            0 => Err(WireError::Closed),
            bytes => {
                self.filled += bytes;
                Ok(())
            }
        }
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while self.sent < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(bytes)) => self.sent += bytes,
                // The server may have answered (413, say) and closed: read that first.
                Poll::Ready(Err(_)) => self.sent = self.out.len(),
                Poll::Pending => break,
            }
        }
        let mut buffer = ReadBuf::new(&mut self.input[self.filled..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

/// Reads an answer's head; `None` when it is not all there.
fn parse(input: &[u8]) -> Result<Option<Head>, WireError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(input).map_err(|_| WireError::Malformed)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial if input.len() > HEAD_BYTES_MAX => {
            return Err(WireError::Malformed);
        }
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(WireError::Malformed)?;
    let (mut body_bytes, mut closing) = (None, response.version == Some(0));
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| WireError::Malformed)?;
            body_bytes = Some(text.trim().parse().map_err(|_| WireError::Malformed)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(WireError::Malformed);
        } else if header.name.eq_ignore_ascii_case("connection") {
            closing |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let body_bytes = match (status, body_bytes) {
        (204 | 304, _) => 0,
        (_, Some(bytes)) if bytes <= BODY_BYTES_MAX => bytes,
        _ => return Err(WireError::Malformed),
    };
    Ok(Some(Head { status, head_bytes, body_bytes, closing }))
}

/// The parts of a request that do not change from one to the next.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Path and key prefix, encoded.
    path: String,
    /// Path and query of a listing, up to the index of the key that it begins behind.
    listing: String,
    /// ` HTTP/1.1`, the host, and what every request has.
    tail: String,
}

impl Requests {
    /// `base` is the path of the URL without its last slash, `prefix` any bytes of a key.
    pub(crate) fn new(host: &str, base: &str, prefix: &str) -> Self {
        let mut encoded = String::new();
        for byte in prefix.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        Self {
            path: format!("{base}/values/{encoded}"),
            listing: format!("{base}/values/?prefix={encoded}&after={encoded}"),
            tail: format!(" HTTP/1.1\r\nhost: {host}\r\n"),
        }
    }

    /// Appends `GET` of a listing: at most `limit` keys behind the one with index `after`.
    pub(crate) fn list(&self, out: &mut Vec<u8>, after: u64, limit: u32) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.listing.as_bytes());
        append(out, format_args!("{after:08}&limit={limit}"));
        out.extend_from_slice(self.tail.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends `PUT` up to the body, which is done only if the value has this ETag now; if there is
    /// none now, where that is `None`.
    pub(crate) fn put_if(&self, out: &mut Vec<u8>, key: u64, etag: Option<&[u8]>, bytes: usize) {
        self.start(out, "PUT ", key);
        match etag {
            Some(etag) => {
                out.extend_from_slice(b"if-match: ");
                out.extend_from_slice(etag);
            }
            None => out.extend_from_slice(b"if-none-match: *"),
        }
        append(out, format_args!("\r\ncontent-length: {bytes}\r\n\r\n"));
    }

    /// Appends `GET` of the key with index `key`.
    pub(crate) fn get(&self, out: &mut Vec<u8>, key: u64) {
        self.start(out, "GET ", key);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends `PUT` up to the body, which has `body_bytes`.
    pub(crate) fn put(&self, out: &mut Vec<u8>, key: u64, body_bytes: usize) {
        self.start(out, "PUT ", key);
        out.extend_from_slice(b"content-type: application/octet-stream\r\ncontent-length: ");
        append(out, format_args!("{body_bytes}\r\n\r\n"));
    }

    fn start(&self, out: &mut Vec<u8>, method: &str, key: u64) {
        out.extend_from_slice(method.as_bytes());
        out.extend_from_slice(self.path.as_bytes());
        append(out, format_args!("{key:08}"));
        out.extend_from_slice(self.tail.as_bytes());
    }
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_whole_and_refused_when_it_is_something_else() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nconnection: close\r\n\r\nhello";
        let head = parse(whole).expect("good").expect("whole");
        assert_eq!((head.status, head.body_bytes, head.closing), (200, 5, true));
        assert_eq!(&whole[head.head_bytes..], b"hello");
        assert!(parse(&whole[..20]).expect("good so far").is_none());
        let no_content = parse(b"HTTP/1.1 204 No Content\r\n\r\n").expect("good").expect("whole");
        assert_eq!(no_content.body_bytes, 0);
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_of_an_answer_is_found_whatever_its_case() {
        let head = b"HTTP/1.1 200 OK\r\nETag: \"5-a\"\r\ncontent-length: 0\r\n\r\n";
        let answer = Answer { status: 200, body: b"", head };
        assert_eq!(answer.header("etag"), Some(&b"\"5-a\""[..]));
        assert_eq!(answer.header("date"), None);
    }

    #[test]
    fn requests_are_written_with_the_prefix_encoded() {
        let requests = Requests::new("h:1", "", "a b/%");
        let mut out = Vec::new();
        requests.get(&mut out, 7);
        requests.put(&mut out, 8, 2);
        requests.list(&mut out, 9, 10);
        requests.put_if(&mut out, 1, Some(b"\"x\""), 3);
        requests.put_if(&mut out, 1, None, 3);
        let expected = "GET /values/a%20b/%2500000007 HTTP/1.1\r\nhost: h:1\r\n\r\n\
            PUT /values/a%20b/%2500000008 HTTP/1.1\r\nhost: h:1\r\n\
            content-type: application/octet-stream\r\ncontent-length: 2\r\n\r\n\
            GET /values/?prefix=a%20b/%25&after=a%20b/%2500000009&limit=10 HTTP/1.1\r\nhost: h:1\r\n\r\n\
            PUT /values/a%20b/%2500000001 HTTP/1.1\r\nhost: h:1\r\n\
            if-match: \"x\"\r\ncontent-length: 3\r\n\r\n\
            PUT /values/a%20b/%2500000001 HTTP/1.1\r\nhost: h:1\r\n\
            if-none-match: *\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
