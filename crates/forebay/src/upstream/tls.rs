//! TLS to peers: what the options of `upstream` say of it, who a peer must prove to be, and how a
//! failure is told.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use forebay_config::{Call, Code, Node, Report, Template};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{Peer, Place, Upstream};
use crate::exchange::{Exchange, Fault, Reason, expand};
use crate::transport::{Tls, Transport};

/// What a pool says of TLS. Equal ones make equal connections: what files hold counts, not where
/// they are.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSpec {
    /// The name that every peer must prove to have.
    name: Option<Template>,
    /// Whether it must.
    verify: bool,
    /// Who may say so; none: whom the system trusts.
    authorities: Option<Vec<CertificateDer<'static>>>,
    /// What we prove ourselves by.
    identity: Option<Arc<Identity>>,
}

#[derive(Debug, PartialEq)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Default for TlsSpec {
    fn default() -> TlsSpec {
        TlsSpec {
            name: None,
            verify: true,
            authorities: None,
            identity: None,
        }
    }
}

impl TlsSpec {
    /// What the options of an `upstream` say; mistakes are reported.
    pub fn of(call: &Call, report: &mut Report) -> Option<TlsSpec> {
        let authorities = match call.node("tls_ca") {
            Some(node) => Some(certificates(call, "tls_ca", node, report)?),
            None => None,
        };
        let identity = match (call.node("tls_cert"), call.node("tls_key")) {
            (None, None) => None,
            (Some(chain), Some(key)) => {
                let chain = certificates(call, "tls_cert", chain, report);
                let key = private_key(call, key, report);
                Some(Arc::new(Identity {
                    chain: chain?,
                    key: key?,
                }))
            }
            (Some(one), None) | (None, Some(one)) => {
                let message = format!("{}: `tls_cert` and `tls_key` go together", call.subject());
                report.mistake(one.place, Code::Missing, message, "give both of them");
                return None;
            }
        };
        let spec = TlsSpec {
            name: call.find::<&Template>("tls_name").cloned(),
            verify: call.get("tls_verify"),
            authorities,
            identity,
        };
        // What only the two together tell: whether the key is that of the certificate.
        if let Err(error) = spec.client_config() {
            let place = call.node("tls_cert").map_or(call.place, |node| node.place);
            let message = format!("{}: {error}", call.subject());
            report.mistake(place, Code::BadValue, message, "");
            return None;
        }
        Some(spec)
    }

    /// True if nobody is trusted: no connection can come about.
    pub fn trusts_nobody(&self) -> bool {
        self.verify && self.authorities.is_none() && system_authorities().is_empty()
    }

    /// What connections are made with. Pools that say nothing of TLS share one, and so sessions
    /// that can be resumed.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, String> {
        static USUAL: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if *self != TlsSpec::default() {
            return self.new_config().map(Arc::new);
        }
        if let Some(usual) = USUAL.get() {
            return Ok(usual.clone());
        }
        let made = Arc::new(self.new_config()?);
        Ok(USUAL.get_or_init(|| made).clone())
    }

    fn new_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.verify {
            // Without any, it refuses everybody, as it must.
            builder.with_root_certificates(self.roots()?)
        } else {
            let anyone = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(anyone)
        };
        let mut config = match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| format!("the certificate and the key cannot be used: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let Some(authorities) = &self.authorities else {
            return Ok(system_authorities().clone());
        };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots
                .add(authority.clone())
                .map_err(|error| format!("`tls_ca`: {error}"))?;
        }
        Ok(Arc::new(roots))
    }
}

/// Those that the system trusts, read once: at the first peer with TLS.
fn system_authorities() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // Of what a system trusts, some is often too old to be understood; the rest is good.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    })
}

fn certificates(
    call: &Call,
    option: &str,
    node: &Node,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let path = node.get::<&Path>();
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string());
    let wrong = match read {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => "there is no certificate in it".to_owned(),
        Err(error) => error,
    };
    not_read(call, option, node, path, &wrong, report);
    None
}

fn private_key(call: &Call, node: &Node, report: &mut Report) -> Option<PrivateKeyDer<'static>> {
    let path = node.get::<&Path>();
    match PrivateKeyDer::from_pem_file(path) {
        Ok(key) => Some(key),
        Err(error) => {
            not_read(call, "tls_key", node, path, &error.to_string(), report);
            None
        }
    }
}

fn not_read(call: &Call, option: &str, node: &Node, path: &Path, wrong: &str, report: &mut Report) {
    report.mistake(
        node.place,
        Code::NotFound,
        format!(
            "{}: `{option}`: {} cannot be used: {wrong}",
            call.subject(),
            path.display()
        ),
        "expected a file in PEM form",
    );
}

impl Upstream {
    /// Who a peer must prove to be for this exchange; `None` in the clear.
    pub fn tls_name(&self, peer: &Peer, exchange: &Exchange) -> Option<String> {
        let spec = self.definition.tls.as_ref().filter(|_| peer.tls)?;
        if let Some(template) = &spec.name {
            let mut name = Vec::new();
            expand(template, exchange, None, &mut name);
            return Some(String::from_utf8_lossy(&name).into_owned());
        }
        let host = exchange.request.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(match &peer.place {
            Place::Name(name, _) => name.to_string(),
            // An HTTP/1.0 client may name no host.
            Place::Address(address) if host.is_empty() => address.ip().to_string(),
            Place::Address(_) | Place::Unix(_) | Place::Process(_) => host.to_owned(),
        })
    }
}

impl Upstream {
    /// Makes a connection for a check secure, where the peer is spoken to over TLS. Without a
    /// request it is the check that says who a bare address must prove to be: its `host`.
    pub async fn secure_check(
        &self,
        peer: &Peer,
        io: Transport,
        host: Option<&str>,
    ) -> io::Result<Transport> {
        let (Some(spec), Some(config), true) = (&self.definition.tls, &self.tls, peer.tls) else {
            return Ok(io);
        };
        let said = spec.name.as_ref().and_then(Template::as_literal);
        let name = match (said, &peer.place) {
            (Some(name), _) => name.to_owned(),
            (None, Place::Name(name, _)) => name.to_string(),
            (None, Place::Address(address)) => host.map_or(address.ip().to_string(), str::to_owned),
            (None, Place::Unix(_) | Place::Process(_)) => host.unwrap_or("localhost").to_owned(),
        };
        Tls::connect(io, config.clone(), &name).await
    }
}

/// Makes a connection of our own secure, to a server that belongs to no pool.
pub async fn secure(io: Transport, name: &str) -> io::Result<Transport> {
    let config = TlsSpec::default().client_config();
    Tls::connect(io, config.map_err(io::Error::other)?, name).await
}

/// Why there is no connection over TLS.
pub fn fault(peer: &Peer, name: &str, error: &io::Error) -> Fault {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let reason = match cause {
        Some(Error::InvalidCertificate(_)) => Reason::CertificateRefused,
        _ => Reason::TlsFailed,
    };
    Fault::with(reason, format!("{} as {name}: {error}", peer.label))
}

/// For `tls_verify = false`: whoever answers is believed to be the peer. That it has the key of its
/// certificate is still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use crate::steps::testing::{mistakes, try_build};

    /// A configuration with an upstream of one peer and these options.
    fn with(target: &str, options: &str) -> String {
        format!(
            "local app = upstream \"app\" {{ \"{target}\", {options} }}\n\
             site {{ \"*\", proxy(app) }}"
        )
    }

    #[track_caller]
    fn check(options: &str, message: &str, help: &str) {
        let said = mistakes(&with("https://a.test", options));
        assert!(said.contains(message) && said.contains(help), "{said}");
    }

    #[test]
    fn mistakes_name_the_option_and_the_file() {
        check(
            r#"tls_ca = "/no/such.pem""#,
            r#"upstream "app": `tls_ca`: /no/such.pem cannot be used: "#,
            "expected a file in PEM form",
        );
        check(
            r#"tls_ca = "/dev/null""#,
            "/dev/null cannot be used: there is no certificate in it",
            "",
        );
        check(
            r#"tls_cert = "/dev/null""#,
            r#"upstream "app": `tls_cert` and `tls_key` go together"#,
            "give both of them",
        );
        check(
            r#"tls_cert = "/dev/null", tls_key = "/dev/null""#,
            "`tls_key`: /dev/null cannot be used",
            "",
        );
    }

    #[test]
    fn options_without_a_peer_to_use_them_are_warned_of() {
        let (built, report) = try_build(&with("http://a.test", r#"tls_name = "b.test""#));
        assert!(built.is_some());
        let said = report.render_warnings();
        assert!(said.contains("no peer is spoken to over TLS"), "{said}");
    }

    #[test]
    fn other_schemes_are_not_built() {
        for scheme in ["h2c", "h3"] {
            let said = mistakes(&with(&format!("{scheme}://a.test"), ""));
            assert!(said.contains("are not built yet"), "{said}");
        }
    }

    #[test]
    fn pools_that_say_nothing_of_tls_share_their_sessions() {
        let spec = super::TlsSpec::default();
        let (a, b) = (spec.client_config(), spec.client_config());
        assert!(std::sync::Arc::ptr_eq(
            &a.expect("one"),
            &b.expect("another")
        ));
    }
}
