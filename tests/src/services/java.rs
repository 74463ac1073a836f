//! Java 17, and what Maven fetches: kept in the cache, once, also when several programs ask at the same time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use protocols::uplink::Sha256;

use super::server::run;
use super::{Missing, cache, program, root};

/// Cassandra 5 takes no newer one.
const VERSION: &str = "17";
/// A registry behind a slow line has some 250 MB to send, once.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);
/// The plug-in is named with its version wherever there is no pom.xml that does.
const GET: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get";

/// The program `java` of Java 17.
pub fn java() -> Result<PathBuf> {
    let homes = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().chain(installed());
    let mut candidates = homes.map(|home| home.join("bin/java")).filter(|java| java.is_file()).chain(program("java"));
    candidates.find(|java| is_wanted(java)).ok_or_else(|| {
        Missing::error(format!("there is no Java {VERSION}"), "apt-get install openjdk-17-jre-headless maven")
    })
}

fn installed() -> Vec<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().filter_map(Result::ok);
    folders
        .filter(|folder| folder.file_name().to_string_lossy().contains(VERSION))
        .map(|folder| folder.path())
        .collect()
}

fn is_wanted(java: &Path) -> bool {
    let output = Command::new(java).arg("-version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains(&format!("version \"{VERSION}")))
}

/// The program `java` of Java 17, which also runs a source file.
pub fn jdk() -> Result<PathBuf> {
    // Compiler and virtual machine of a JDK lie side by side; what stands on the search path is a link to the latter.
    let java = java()?.canonicalize().context("cannot follow the links of java")?;
    if java.with_file_name("javac").is_file() {
        return Ok(java);
    }
    Err(Missing::error(format!("there is no compiler of Java {VERSION}"), "apt-get install openjdk-17-jdk-headless"))
}

/// The folder of all jars that `tests/services/NAME/pom.xml` asks for.
pub fn jars(name: &str) -> Result<PathBuf> {
    jars_of(name, &root()?.join("tests/services").join(name).join("pom.xml"))
}

/// The folder of all jars that a pom.xml asks for. Another text of it, another folder.
pub fn jars_of(name: &str, pom: &Path) -> Result<PathBuf> {
    let text = std::fs::read(pom).with_context(|| format!("cannot read {}", pom.display()))?;
    let hash = Sha256::of(&text).to_string();
    fetched(&format!("{name}-{}", &hash[..12]), |staging, repository| {
        let mut maven = maven(repository)?;
        maven.arg("-f").arg(pom).args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        maven.arg(option("outputDirectory", staging));
        fetch(&format!("maven-{name}"), &maven, repository)
    })
}

/// The folder of an archive that stands in Maven's repositories as `group:artifact:version:tar.gz:classifier`, unpacked.
///
/// Fetched by an old plug-in, which does not read the artifact's descriptor: its parent is not in every repository.
pub fn archive(artifact: &str) -> Result<PathBuf> {
    let parts: Vec<&str> = artifact.split(':').collect();
    let &[group, name, version, suffix, classifier] = &parts[..] else { anyhow::bail!("{artifact} is no archive") };
    fetched(&format!("{name}-{version}"), |staging, repository| {
        let mut maven = maven(repository)?;
        maven.args([GET, &format!("-Dartifact={artifact}"), "-Dtransitive=false"]);
        fetch(&format!("maven-{name}"), &maven, repository)?;
        let folder = repository.join(group.replace('.', "/")).join(name).join(version);
        let file = folder.join(format!("{name}-{version}-{classifier}.{suffix}"));
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&file).arg("-C").arg(staging);
        run("tar", &tar, repository, FETCH_TIMEOUT)?;
        Ok(())
    })
}

/// What lies in the cache under a name, made by `make(staging, repository)` when it does not yet. Whoever comes second waits for
/// the first, and what a killed program left half made is made again: only a whole folder gets the name.
pub(super) fn fetched(name: &str, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache()?;
    let folder = cache.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let repository = cache.join("repository");
    std::fs::create_dir_all(&repository).with_context(|| format!("cannot make {}", repository.display()))?;
    // Maven's own repository is not made for two at once either.
    let lock = File::create(cache.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", cache.display()))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let staging = cache.join(format!("{name}.part"));
    if staging.exists() {
        std::fs::remove_dir_all(&staging)?;
    }
    std::fs::create_dir(&staging)?;
    make(&staging, &repository)?;
    ensure!(std::fs::read_dir(&staging)?.next().is_some(), "nothing was fetched for {name}");
    std::fs::rename(&staging, &folder)?;
    Ok(folder)
}

/// Runs what fetches from a registry.
pub(super) fn fetch(name: &str, command: &Command, folder: &Path) -> Result<()> {
    match run(name, command, folder, FETCH_TIMEOUT) {
        Ok(_) => Ok(()),
        Err(error) => Err(Missing::error(
            format!("cannot fetch: {error:#}"),
            "the package registries must be reachable once; what was fetched stays in the cache",
        )),
    }
}

fn maven(repository: &Path) -> Result<Command> {
    java()?;
    let maven = program("mvn").ok_or_else(|| Missing::error("there is no Maven", "apt-get install maven"))?;
    let mut command = Command::new(maven);
    command.args(["-q", "-B", "-Dstyle.color=never"]).arg(option("maven.repo.local", repository));
    Ok(command)
}

fn option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(format!("-D{name}="));
    option.push(value);
    option
}

/// `FOLDER/*`, which Java itself takes for every jar in it.
pub fn class_path(jars: &Path) -> String {
    format!("{}/*", jars.display())
}
