//! Requests that are as they should be; others are written by hand.

/// A request, built up by methods that each return it.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    minor: u8,
    host: Option<String>,
    fields: Vec<(String, String)>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, Vec<(String, String)>),
}

impl Request {
    /// A request with this method and target, HTTP/1.1, `Host: forebay.test`.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            minor: 1,
            host: Some("forebay.test".into()),
            fields: Vec::new(),
            body: Body::None,
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A HEAD.
    #[must_use]
    pub fn head(target: &str) -> Self {
        Self::new("HEAD", target)
    }

    /// A POST with a body of known length.
    #[must_use]
    pub fn post(target: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", target).body(body)
    }

    /// With one more field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// With this Host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// In HTTP/1.0, without a Host.
    #[must_use]
    pub fn http10(mut self) -> Self {
        self.minor = 0;
        self.host = None;
        self
    }

    /// With a body of known length.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Body::Length(body.as_ref().to_vec());
        self
    }

    /// With a chunked body.
    #[must_use]
    pub fn chunks(mut self, chunks: &[&[u8]]) -> Self {
        self.body = Body::Chunked(chunks.iter().map(|c| c.to_vec()).collect(), Vec::new());
        self
    }

    /// With a trailer field; only after [`Request::chunks`].
    ///
    /// # Panics
    /// When the body is not chunked.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let Body::Chunked(_, trailers) = &mut self.body else {
            panic!("a trailer needs chunks")
        };
        trailers.push((name.into(), value.into()));
        self
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Head alone, the empty line included.
    #[must_use]
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.{}\r\n", self.method, self.target, self.minor);
        if let Some(host) = &self.host {
            out += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.fields {
            out += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Length(body) => out += &format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(_, trailers) => {
                out += "Transfer-Encoding: chunked\r\n";
                if !trailers.is_empty() {
                    let names: Vec<&str> = trailers.iter().map(|(n, _)| n.as_str()).collect();
                    out += &format!("Trailer: {}\r\n", names.join(", "));
                }
            }
        }
        out += "\r\n";
        out.into_bytes()
    }

    /// Head and body.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.head_bytes();
        match &self.body {
            Body::None => {}
            Body::Length(body) => out.extend_from_slice(body),
            Body::Chunked(chunks, trailers) => {
                for chunk in chunks {
                    out.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    out.extend_from_slice(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\n");
                for (name, value) in trailers {
                    out.extend(format!("{name}: {value}\r\n").bytes());
                }
                out.extend(b"\r\n");
            }
        }
        out
    }
}
