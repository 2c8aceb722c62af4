// A client of the proxy in Rust, on ureq and rustls.
//
// Arguments: the proxy's URL, the file of its CA, the URL of an HTTPS origin, that of an HTTP origin. It prints what it got as JSON.
// Or `refuse PROXY URL CA HOW`: it shakes hands, and ends with 0 when it has refused the certificate, with 1 when it has not. `unknown`
// knows the CAs of SSL_CERT_FILE only, `pinned` another key.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, SendBody};

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body() -> Vec<u8> {
    (0..200_000).map(|i| (i % 251) as u8).collect()
}

fn content(response: ureq::http::Response<Body>) -> Vec<u8> {
    let mut data = Vec::new();
    response.into_body().into_reader().read_to_end(&mut data).unwrap();
    data
}

// The value of a string in a JSON object, which is all that is needed here.
fn field(data: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(data);
    let rest = text.split(&format!("\"{name}\": \"")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split('"').next().unwrap().to_string()
}

fn agent(proxy: &str, ca: &str) -> Agent {
    let root = Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![root]))).build();
    Agent::config_builder()
        .proxy(Some(Proxy::new(proxy).unwrap()))
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

fn fetch(arguments: &[String]) {
    let [proxy, ca, origin, plain] = arguments else { panic!("wrong arguments") };
    let agent = agent(proxy, ca);
    let get = |path: &str| content(agent.get(format!("{origin}{path}")).call().unwrap());

    let posted = content(agent.post(format!("{origin}/echo")).send(&body()[..]).unwrap());
    // a reader of unknown length is sent chunked
    let streamed = content(agent.post(format!("{origin}/echo")).send(SendBody::from_reader(&mut &body()[..])).unwrap());
    let head = agent.head(format!("{origin}/bytes/5000")).call().unwrap();
    let statuses: Vec<u16> = ["204", "304", "404", "500"]
        .iter()
        .map(|status| agent.get(format!("{origin}/status/{status}")).call().unwrap().status().as_u16())
        .collect();
    let parallel: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let get = &get;
                scope.spawn(move || (0..5).filter(|i| get(&format!("/bytes/{}", 1000 * worker + i)).len() == 1000 * worker + i).count())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!(
        r#"{{"get": "{}", "chunked": "{}", "posted": "{}", "streamed": "{}", "head": {}, "statuses": {:?}, "parallel": {}, "plain": "{}"}}"#,
        digest(&get("/bytes/100000")),
        digest(&get("/chunked/70000/9")),
        field(&posted, "body_sha256"),
        field(&streamed, "body_sha256"),
        head.headers()["content-length"].to_str().unwrap(),
        statuses,
        parallel,
        digest(&content(agent.get(format!("{plain}/bytes/9")).call().unwrap())),
    );
}

#[derive(Debug)]
struct Pinned;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn refuse(proxy: &str, url: &str, how: &str) {
    let target = url.trim_start_matches("https://").trim_end_matches('/');
    let mut socket = TcpStream::connect(proxy.trim_start_matches("http://")).unwrap();
    write!(socket, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = if how == "pinned" {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned)).with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        if let Ok(known) = std::env::var("SSL_CERT_FILE") {
            roots.add(CertificateDer::from_pem_file(known).unwrap()).unwrap();
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    let name = ServerName::try_from(target.split(':').next().unwrap().to_string()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    if let Err(error) = write!(stream, "GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n") {
        println!("{error}");
        return;
    }
    stream.read_to_end(&mut answer).unwrap();
    std::process::exit(1);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["refuse", proxy, url, _, how] => refuse(proxy, url, how),
        _ => fetch(&arguments),
    }
}
