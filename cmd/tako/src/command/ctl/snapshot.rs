//! `tako ctl snapshot`: backups of a cluster in its object store.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tako_coordinator::step_all;
use tako_snapshot::backup::{About, Backup, BackupName, Count, Listed, Verified, utc};
use tako_types::{Clock as _, ErrorKind, PartitionId, SystemClock};

use super::source::{Source, SourceArgs, narrator};
use crate::{
    command::{
        coordinators::nodes,
        output::{Output, print_json},
    },
    failure::Failure,
    trust::TlsArgs,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl snapshot create before-upgrade --store s3://bucket/prefix
  tako ctl snapshot list --config cluster.yaml
  tako ctl snapshot verify before-upgrade --store s3://bucket/prefix
  tako ctl snapshot delete before-upgrade --store s3://bucket/prefix

A backup is a checkpoint of every partition and a document in the store that names them: nothing is
copied, so it costs the same however much there is, and holds files that would else be deleted. It
lies in the store that it is of; `tako ctl restore` copies one elsewhere. For S3 set
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT. Exit codes: tako --help.";

/// Arguments of `tako ctl snapshot`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Make a backup of what was written until now
    Create(CreateArgs),
    /// List all backups
    List(CommonArgs),
    /// Show a backup, partition by partition
    Show(NamedArgs),
    /// Read a backup through: every record's checksum, counts and digests per partition
    Verify(NamedArgs),
    /// Delete a backup; the files that only it needed are collected later
    Delete(NamedArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// Which backup
    #[arg(value_name = "NAME", value_parser = name)]
    name: BackupName,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What to call it: a-z, 0-9, `.`, `_`, `-`; the time (UTC) without one
    #[arg(value_name = "NAME", value_parser = name)]
    name: Option<BackupName>,
    #[command(flatten)]
    common: CommonArgs,
    /// Ask no node to take a step first: the backup holds what steps have covered
    #[arg(long)]
    no_step: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

fn name(text: &str) -> Result<BackupName, String> {
    BackupName::new(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: SnapshotArgs) -> Result<ExitCode, Failure> {
    match args.command {
        SnapshotCommand::Create(args) => create(args).await,
        SnapshotCommand::List(args) => list(args).await,
        SnapshotCommand::Show(args) => show(args).await,
        SnapshotCommand::Verify(args) => verify(args).await,
        SnapshotCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<ExitCode, Failure> {
    let source = args.common.source.open().await?;
    let name = match args.name {
        Some(name) => name,
        None => BackupName::new(utc(SystemClock.now_micros()))?,
    };
    let backups = source.backups().await?;
    let not_stepped = if args.no_step { Vec::new() } else { stepped(&source, &args.tls).await? };
    let configuration = source.document.as_ref().map(|document| document.encode().into());
    let about = About { configuration, not_stepped };
    let made = backups.create(&name, about, &narrator()).await;
    backups.close().await;
    let backup = made?;
    match args.common.output {
        Output::Json => print_json(&as_json(&backup))?,
        Output::Text => println!(
            "backup {}: {} of {} partitions hold something",
            backup.name,
            backup.partitions.len(),
            1u32 << backup.partitions_log2
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Has steps taken; says of which partitions that cannot be relied on.
async fn stepped(source: &Source, tls: &TlsArgs) -> Result<Vec<PartitionId>, Failure> {
    let Some(document) = &source.document else {
        eprintln!(
            "warning: the store has no configuration, so no node could be asked for a step; the \
             backup holds what steps have covered"
        );
        return Ok(Vec::new());
    };
    let not_stepped = step_all(&nodes(tls.open()?), document).await;
    if !not_stepped.is_empty() {
        eprintln!(
            "warning: nodes could not be asked for steps of {} of {} partitions ({}): of these the \
             backup holds what earlier steps have covered",
            not_stepped.len(),
            document.config.partitions,
            shown(&not_stepped)
        );
    }
    Ok(not_stepped)
}

async fn list(args: CommonArgs) -> Result<ExitCode, Failure> {
    let source = args.source.open().await?;
    let backups = source.backups().await?;
    let all = backups.list().await?;
    backups.close().await;
    match args.output {
        Output::Json => print_json(&Value::Array(all.iter().map(listed).collect()))?,
        Output::Text if all.is_empty() => println!("no backups"),
        Output::Text => {
            println!("{:<32} {:<17} {:>10}  VERIFIED", "NAME", "MADE", "PARTITIONS");
            for Listed { name, backup, verified } in &all {
                match backup {
                    Ok(backup) => println!(
                        "{name:<32} {:<17} {:>10}  {}",
                        utc(backup.created_micros),
                        backup.partitions.len(),
                        if *verified { "yes" } else { "no" }
                    ),
                    Err(error) => println!("{name:<32} {error}"),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: NamedArgs) -> Result<ExitCode, Failure> {
    let source = args.common.source.open().await?;
    let backups = source.backups().await?;
    let found = backups.find(&args.name).await;
    backups.close().await;
    let backup = found?;
    if args.common.output == Output::Json {
        print_json(&as_json(&backup))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("name       {}", backup.name);
    println!("made       {}", utc(backup.created_micros));
    println!("cluster    {:032x}", backup.cluster.0);
    println!("partitions {} of {}", backup.partitions.len(), 1u32 << backup.partitions_log2);
    if !backup.not_stepped.is_empty() {
        println!("no step    {}", shown(&backup.not_stepped));
    }
    println!("\n{:>9} {:>9} {:>9}  CHECKPOINT", "PARTITION", "STEP", "MANIFEST");
    for (partition, held) in &backup.partitions {
        let at = held.checkpoint;
        println!("{:>9} {:>9} {:>9}  {:032x}", partition.0, held.step.0, at.manifest, at.id);
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(args: NamedArgs) -> Result<ExitCode, Failure> {
    let source = args.common.source.open().await?;
    let backups = source.backups().await?;
    let outcome = async {
        let backup = backups.find(&args.name).await?;
        backups.verify(&backup, &narrator()).await
    };
    let outcome = outcome.await;
    backups.close().await;
    let verified = outcome?;
    match args.common.output {
        Output::Json => print_json(&json!({
            "name": args.name.as_str(),
            "intact": verified.damage.is_empty(),
            "compared": verified.compared,
            "total": count_json(&verified.total()),
            "partitions": verified.partitions.iter().map(|(partition, count)| {
                let mut row = count_json(count);
                row["partition"] = partition.0.into();
                row
            }).collect::<Vec<_>>(),
            "damage": verified.damage.iter().map(|(partition, what)| {
                json!({ "partition": partition.0, "what": what })
            }).collect::<Vec<_>>(),
        }))?,
        Output::Text => print_verified(&verified),
    }
    let Some((partition, what)) = verified.damage.first_key_value() else {
        return Ok(ExitCode::SUCCESS);
    };
    let (count, name) = (verified.damage.len(), &args.name);
    let text = format!(
        "the backup {name} is damaged in {count} partitions; partition {partition}: {what}"
    );
    Err(Failure::new(ErrorKind::Corrupt, text))
}

fn print_verified(verified: &Verified) {
    print_counts(verified.partitions.iter());
    for (partition, what) in &verified.damage {
        println!("partition {partition} is damaged: {what}");
    }
    if verified.compared {
        println!("compared with what the first verification found");
    } else if verified.damage.is_empty() {
        println!("kept in the store, for later verifications to compare with");
    }
}

/// A table of counts, and their sum.
pub(super) fn print_counts<'a>(counts: impl Iterator<Item = (&'a PartitionId, &'a Count)>) {
    println!("{:>9} {:>12} {:>15}  DIGEST", "PARTITION", "RECORDS", "BYTES");
    let mut total = Count::default();
    for (partition, count) in counts {
        total += *count;
        let Count { records, bytes, digest } = count;
        println!("{:>9} {records:>12} {bytes:>15}  {digest:032x}", partition.0);
    }
    let Count { records, bytes, digest } = total;
    println!("{:>9} {records:>12} {bytes:>15}  {digest:032x}", "all");
}

async fn delete(args: NamedArgs) -> Result<ExitCode, Failure> {
    let source = args.common.source.open().await?;
    let backups = source.backups().await?;
    let outcome = backups.delete(&args.name).await;
    backups.close().await;
    if !outcome? {
        let what = format!("there is no backup `{}`", args.name);
        return Err(Failure::new(ErrorKind::NotFound, what));
    }
    match args.common.output {
        Output::Json => print_json(&json!({ "deleted": args.name.as_str() }))?,
        Output::Text => println!("backup {} deleted", args.name),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn count_json(count: &Count) -> Value {
    json!({
        "records": count.records,
        "bytes": count.bytes,
        "digest": format!("{:032x}", count.digest),
    })
}

fn listed(Listed { name, backup, verified }: &Listed) -> Value {
    match backup {
        Ok(backup) => json!({
            "name": name.as_str(),
            "made": utc(backup.created_micros),
            "partitions": backup.partitions.len(),
            "verified": verified,
        }),
        Err(error) => json!({ "name": name.as_str(), "error": error.to_string() }),
    }
}

fn as_json(backup: &Backup) -> Value {
    json!({
        "name": backup.name.as_str(),
        "made": utc(backup.created_micros),
        "cluster": format!("{:032x}", backup.cluster.0),
        "partitions_of_cluster": 1u32 << backup.partitions_log2,
        "not_stepped": backup.not_stepped,
        "partitions": backup.partitions.iter().map(|(partition, held)| json!({
            "partition": partition.0,
            "step": held.step.0,
            "manifest": held.checkpoint.manifest,
            "checkpoint": format!("{:032x}", held.checkpoint.id),
        })).collect::<Vec<_>>(),
    })
}

/// Partitions for people: some of them.
fn shown(partitions: &[PartitionId]) -> String {
    const SHOWN_MAX: usize = 12;
    let some = partitions.iter().take(SHOWN_MAX).map(|p| p.0.to_string());
    let more = if SHOWN_MAX < partitions.len() { ", …" } else { "" };
    some.collect::<Vec<_>>().join(", ") + more
}
