//! Claims about who gets in, who does not and why, and about new certificates.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{MemoryNetwork, TcpNetwork};

/// An authority with its own key.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        // Two with one name would differ by their signatures only.
        let name = format!("authority {:?}", &key.der_bytes()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes the files of a member called `host`.
    fn member(&self, folder: &Path, host: &str, until_year: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(folder.join("ca.pem"), &self.pem).expect("written");
        fs::write(folder.join("cert.pem"), certificate.pem()).expect("written");
        fs::write(folder.join("key.pem"), key.serialize_pem()).expect("written");
    }

    fn certificates(&self, host: &str, until_year: i32) -> Arc<Certificates> {
        let folder = TempDir::new().expect("a folder");
        self.member(folder.path(), host, until_year);
        Certificates::open(folder.path()).expect("whole")
    }
}

const LATER: i32 = 4000;
const PAST: i32 = 2001;

/// What the server got to read, and why the client or the server found it wrong.
async fn meet(
    server: Arc<Certificates>,
    client: Arc<Certificates>,
    address: &str,
) -> Result<(), String> {
    let network = MemoryNetwork::new();
    let listener = TlsNetwork::new(network.clone(), server).listen(address).await.expect("free");
    let calls = TlsNetwork::new(network, client);
    let called = async {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    let calling = async {
        let mut stream = calls.connect(address).await?;
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        // In TLS 1.3 the client hears only here that it was turned away.
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        assert_eq!(&bytes, b"ping");
        io::Result::Ok(())
    };
    let (called, calling) = tokio::join!(called, calling);
    match (called, calling) {
        (Ok(()), Ok(())) => Ok(()),
        (called, calling) => Err(format!("{:?}; {:?}", called.err(), calling.err())),
    }
}

#[tokio::test]
async fn members_of_one_authority_reach_each_other_by_name_and_by_address() {
    let authority = Authority::new();
    for (host, address) in [("b", "b:1"), ("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")] {
        let server = authority.certificates(host, LATER);
        let client = authority.certificates("a", LATER);
        assert_eq!(meet(server, client, address).await, Ok(()), "{host}");
    }
}

#[tokio::test]
async fn nobody_gets_in_or_is_believed_without_a_certificate_that_holds() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let member = |host: &str| ours.certificates(host, LATER);
    for (server, client, what) in [
        (member("b"), theirs.certificates("a", LATER), "UnknownIssuer"),
        (theirs.certificates("b", LATER), member("a"), "UnknownIssuer"),
        (member("b"), ours.certificates("a", PAST), "xpired"),
        (ours.certificates("b", PAST), member("a"), "xpired"),
        (member("c"), member("a"), "not valid for name"),
    ] {
        let why = meet(server, client, "b:1").await.expect_err(what);
        assert!(why.contains(what), "{what}: {why}");
    }
}

#[tokio::test]
async fn clients_need_no_certificate_and_members_do() {
    let authority = Authority::new();
    let certificates = authority.certificates("localhost", LATER);
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.pem.as_bytes();
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(pem).expect("a certificate");
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    for (members_only, wanted) in [(false, true), (true, false)] {
        let inner = TcpNetwork.listen("127.0.0.1:0").await.expect("free");
        let listener = match members_only {
            true => TlsListener::for_members(inner, certificates.clone()),
            false => TlsListener::for_clients(inner, certificates.clone()),
        };
        let address = listener.address();
        let called = async {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(b"x").await?;
            stream.flush().await
        };
        let calling = async {
            let stream = TcpNetwork.connect(&address).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            let mut stream = connector.connect(name, stream).await?;
            stream.read_exact(&mut [0; 1]).await
        };
        let (called, calling) = tokio::join!(called, calling);
        assert_eq!(called.is_ok() && calling.is_ok(), wanted, "{called:?} {calling:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_says_nothing_is_let_go_and_plain_text_is_no_handshake() {
    let certificates = Authority::new().certificates("b", LATER);
    let network = MemoryNetwork::new();
    let listener =
        TlsNetwork::new(network.clone(), certificates).listen("b:1").await.expect("free");
    let mut silent = network.connect("b:1").await.expect("listens");
    let (mut stream, _) = listener.accept().await.expect("came");
    let error = stream.read(&mut [0; 1]).await.expect_err("no handshake");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(silent.write_all(b"x").await.is_err(), "the stream is still there");

    let mut plain = network.connect("b:1").await.expect("listens");
    let (mut stream, _) = listener.accept().await.expect("came");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("open");
    let error = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 1])).await;
    assert!(error.expect("at once").is_err());
}

#[tokio::test]
async fn a_reload_brings_new_certificates_and_one_that_fails_changes_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = TempDir::new().expect("a folder");
    old.member(folder.path(), "b", LATER);
    let server = Certificates::open(folder.path()).expect("whole");
    fs::write(folder.path().join("cert.pem"), "nothing").expect("written");
    let error = server.reload().expect_err("no certificate").to_string();
    assert!(error.contains("cert.pem") && error.contains("no certificate in it"), "{error}");
    assert_eq!(meet(server.clone(), old.certificates("a", LATER), "b:1").await, Ok(()));
    new.member(folder.path(), "b", LATER);
    server.reload().expect("whole");
    assert_eq!(meet(server.clone(), new.certificates("a", LATER), "b:1").await, Ok(()));
    assert!(meet(server, old.certificates("a", LATER), "b:1").await.is_err());
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let authority = Authority::new();
    let check = |spoil: &dyn Fn(&Path), file: &str, reason: &str| {
        let folder = TempDir::new().expect("a folder");
        authority.member(folder.path(), "b", LATER);
        spoil(folder.path());
        let error = Certificates::open(folder.path()).expect_err(reason).to_string();
        assert!(error.contains(file) && error.contains(reason), "{error}");
    };
    check(&|it| fs::remove_file(it.join("ca.pem")).expect("there"), "ca.pem", "cannot read");
    check(&|it| fs::remove_file(it.join("key.pem")).expect("there"), "key.pem", "cannot read");
    check(&|it| fs::write(it.join("key.pem"), "x").expect("there"), "key.pem", "no private key");
    let garbled = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
    check(&|it| fs::write(it.join("ca.pem"), garbled).expect("there"), "ca.pem", "PEM");
    let other = KeyPair::generate().expect("a key").serialize_pem();
    check(&|it| fs::write(it.join("key.pem"), &other).expect("there"), "key.pem", "not the key of");
}
