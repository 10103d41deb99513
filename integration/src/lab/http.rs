//! A few lines of HTTP/1.1 client: one request, one connection, the whole answer. The tests use it
//! in place of the agent's own client so that both ends of the interface are not the same code.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, with chunks put together.
    pub body: String,
}

/// Sends a request over an open connection and reads until the peer closes it.
///
/// # Errors
/// When the connection breaks or the answer is not HTTP/1.1.
pub fn request(mut stream: impl Read + Write, method: &str, target: &str, body: Option<&str>) -> Result<Response> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n");
    if let Some(body) = body {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    head += body.unwrap_or_default();
    stream.write_all(head.as_bytes()).with_context(|| format!("sending {method} {target}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("reading the answer to {method} {target}"))?;
    parse(&answer)
        .with_context(|| format!("{method} {target} was answered with {:?}", String::from_utf8_lossy(&answer)))
}

fn parse(answer: &[u8]) -> Result<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the head")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .context("no status line")?;
    let chunked = lines.any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("transfer-encoding:") && line.contains("chunked")
    });
    let rest = &answer[end + 4..];
    let body = if chunked { dechunk(rest)? } else { rest.to_vec() };
    let body = String::from_utf8(body)?;
    Ok(Response { status, body })
}

/// Puts a chunked body together (RFC 9112, section 7.1).
fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").context("a chunk without its size")?;
        let size = std::str::from_utf8(&rest[..line])?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        if rest.len() < size + 2 {
            bail!("the answer ends within a chunk");
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_answer_is_put_together() -> Result<()> {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n";
        let response = parse(answer)?;
        assert_eq!((response.status, &*response.body), (200, "abc0123456789"));
        Ok(())
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200").is_err());
    }
}
