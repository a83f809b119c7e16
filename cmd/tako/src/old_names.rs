//! The program names and flags of the first Tako, so that old scripts go on working.
//!
//! Linked as `tako-node`, `tako-proxy`, `tako-coordinator` or `tako-cluster`, the program is that
//! subcommand, and `-id`, `-cfg`, `-v`, `-d` and `-c ADDRESS PORT` mean what they did. Anything else
//! is left as it is. Pure.

use std::{ffi::OsString, path::Path};

/// Arguments, the program's own name first, in today's form.
pub(crate) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let Some(program) = arguments.next() else { return Vec::new() };
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let role = match name.strip_prefix("tako-") {
        Some(role @ ("node" | "proxy" | "coordinator" | "cluster")) => role.to_owned(),
        _ => return std::iter::once(program).chain(arguments).collect(),
    };
    let mut out = vec![program, role.into()];
    let mut rest = arguments.peekable();
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("-id") => out.push("--id".into()),
            Some("-cfg") => out.push("--config".into()),
            Some("-v") => out.push("--var".into()),
            Some("-d" | "--debug") => out.extend(["--log".into(), "debug".into()]),
            Some("-c" | "--coordinator") => {
                out.push("--coordinator".into());
                let mut address = rest.next().unwrap_or_default();
                let port =
                    |next: &OsString| next.to_str().is_some_and(|t| t.parse::<u16>().is_ok());
                if let Some(port) = rest.next_if(port) {
                    address.push(":");
                    address.push(port);
                }
                out.push(address);
            }
            _ => out.push(word),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words = translate(line.split(' ').map(OsString::from));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn old_program_names_and_flags_read_as_todays() {
        check(
            "/bin/tako-node -id n2 -c localhost 4701 -c other 4702 -v /var/tako -d",
            "/bin/tako-node node --id n2 --coordinator localhost:4701 --coordinator other:4702 \
             --var /var/tako --log debug",
        );
        check("tako-proxy -p 8081 -cfg a.yaml", "tako-proxy proxy -p 8081 --config a.yaml");
        check("tako-proxy -c localhost:4701", "tako-proxy proxy --coordinator localhost:4701");
        check("tako-cluster a.yaml -p 1 -p 2", "tako-cluster cluster a.yaml -p 1 -p 2");
    }

    #[test]
    fn todays_arguments_are_left_alone() {
        check("tako node -c a:1 --id n1", "tako node -c a:1 --id n1");
        check("other-node -d", "other-node -d");
    }
}
