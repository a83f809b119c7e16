//! `tako tls`: an authority of a cluster's own, and certificates that it signs.
//!
//! Invariant: no file that is there is written over but a certificate and its key, and only with
//! `--renew`. The authority's key is needed for more certificates only: keep it away from the nodes.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tako_types::ErrorKind;

use super::output::print;
use crate::failure::Failure;

const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca-key.pem";
/// A certificate may have been made by a clock that is ahead.
const SKEW: time::Duration = time::Duration::hours(1);
const AUTHORITY_DAYS: i64 = 3650;

const AFTER_HELP: &str = "\
Examples:
  tako tls create certs --host localhost --host 127.0.0.1       to try it on this machine
  tako tls create certs --host '*.tako.internal'                one certificate for all machines
  tako tls create n1 --authority certs --host n1.tako.internal  one for each, of one authority
  tako tls create certs --host '*.tako.internal' --renew        before the old one expires

Give DIR to each process by --tls; it needs ca.pem, cert.pem and key.pem of it, not ca-key.pem.";

/// Arguments of `tako tls`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TlsCommandArgs {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Debug, Subcommand)]
enum TlsCommand {
    /// Make a certificate, and an authority where there is none yet
    #[command(after_help = AFTER_HELP)]
    Create(CreateArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The folder for ca.pem, cert.pem and key.pem
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A name or address that others call the process by; give it again for more
    #[arg(long, value_name = "HOST", required = true)]
    host: Vec<String>,
    /// Folder with ca.pem and ca-key.pem that this command made; DIR without it
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// How long the certificate holds
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Write over the certificate and key that are there
    #[arg(long)]
    renew: bool,
}

pub(crate) fn run(args: &TlsCommandArgs) -> Result<ExitCode, Failure> {
    let TlsCommand::Create(args) = &args.command;
    let authority_folder = args.authority.as_ref().unwrap_or(&args.folder);
    make(&args.folder)?;
    let (certificate, key) = (args.folder.join("cert.pem"), args.folder.join("key.pem"));
    if !args.renew && (certificate.exists() || key.exists()) {
        let text = format!("there is {} already; --renew makes new ones", certificate.display());
        return Err(Failure::new(ErrorKind::Conflict, text));
    }
    let (issuer, authority) = authority(authority_folder)?;
    let pair = KeyPair::generate().map_err(unmade)?;
    let mut params = CertificateParams::new(args.host.clone())
        .map_err(|error| Failure::invalid(format!("--host: {error}; give names or addresses")))?;
    params.distinguished_name.push(DnType::CommonName, format!("tako {}", args.host[0]));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = holds(args.days.into());
    let until = params.not_after.date();
    let signed = params.signed_by(&pair, &issuer).map_err(unmade)?;
    if authority_folder != &args.folder {
        write(&args.folder.join(AUTHORITY), &authority, 0o644, true)?;
    }
    write(&certificate, &signed.pem(), 0o644, true)?;
    write(&key, &pair.serialize_pem(), 0o600, true)?;
    print(&format!(
        "{} is a certificate for {} until {until}; the processes take it by --tls {}",
        certificate.display(),
        args.host.join(", "),
        args.folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The authority of a folder, made where there is none.
fn authority(folder: &Path) -> Result<(Issuer<'static, KeyPair>, String), Failure> {
    let (certificate, key) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let (pem, pair) = (read(&certificate)?, read(&key)?);
            let wrong = |path: &Path, error: rcgen::Error| {
                Failure::invalid(format!("{}: {error}", path.display()))
            };
            let pair = KeyPair::from_pem(&pair).map_err(|error| wrong(&key, error))?;
            // Its name and use: what it was made with, below.
            Ok((Issuer::new(authority_params(&pair), pair), pem))
        }
        (false, false) => {
            make(folder)?;
            let pair = KeyPair::generate().map_err(unmade)?;
            let params = authority_params(&pair);
            let pem = params.self_signed(&pair).map_err(unmade)?.pem();
            write(&key, &pair.serialize_pem(), 0o600, false)?;
            write(&certificate, &pem, 0o644, false)?;
            Ok((Issuer::new(params, pair), pem))
        }
        _ => Err(Failure::invalid(format!(
            "{} has only one of {AUTHORITY} and {AUTHORITY_KEY}: bring the other, or take an empty \
             folder",
            folder.display()
        ))),
    }
}

/// What an authority of Tako says of itself; its name follows from its key.
fn authority_params(pair: &KeyPair) -> CertificateParams {
    use rcgen::PublicKeyData as _;
    let digest = tako_gateway::digest_of(pair.der_bytes());
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("tako authority {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = holds(AUTHORITY_DAYS);
    params
}

fn holds(days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - SKEW, now + time::Duration::days(days))
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::unavailable(format!("folder {}: {error}", folder.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::invalid(format!("cannot read {}: {error}", path.display())))
}

/// Beside the file, then in its place: a process that reads it never finds a part.
fn write(path: &Path, text: &str, mode: u32, over: bool) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
    if !over && path.exists() {
        return Err(Failure::new(ErrorKind::Conflict, format!("there is {}", path.display())));
    }
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(&new).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

fn unmade(error: rcgen::Error) -> Failure {
    Failure::new(ErrorKind::Internal, format!("cannot make a certificate: {error}"))
}
