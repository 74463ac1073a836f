//! The conformance suites on both fronts: files with threads, memory inline.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::open;
use crate::embedded::{Opened, Options, in_memory};
use crate::log::EventLog;
use crate::log::conformance::{LogSubject, Logs};
use crate::log::embedded::EmbeddedLog;
use crate::store::ReadingStore;
use crate::store::conformance::{StoreSubject, Stores};
use crate::store::embedded::EmbeddedStore;

struct InFiles;

struct FileSubject {
    dir: TempDir,
    opened: Option<Opened>,
}

impl FileSubject {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let opened = Some(open(dir.path(), &Options::default()).unwrap());
        Self { dir, opened }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().unwrap()
    }

    fn reopen_files(&mut self) {
        self.opened = None;
        self.opened = Some(open(self.dir.path(), &Options::default()).unwrap());
    }
}

fn query_only(on: bool) -> String {
    format!("PRAGMA query_only = {}", u8::from(on))
}

#[async_trait]
impl LogSubject for FileSubject {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.opened().log.clone())
    }

    async fn reopen(&mut self) {
        self.reopen_files();
    }

    async fn obstruct(&mut self, obstructed: bool) -> bool {
        self.opened().log.execute(query_only(obstructed)).await.unwrap();
        true
    }
}

#[async_trait]
impl StoreSubject for FileSubject {
    fn store(&self) -> Arc<dyn ReadingStore> {
        Arc::new(self.opened().store.clone())
    }

    async fn reopen(&mut self) {
        self.reopen_files();
    }

    async fn obstruct(&mut self, obstructed: bool) -> bool {
        self.opened().store.execute(query_only(obstructed)).await.unwrap();
        true
    }
}

#[async_trait]
impl Logs for InFiles {
    async fn fresh(&self) -> Box<dyn LogSubject> {
        Box::new(FileSubject::new())
    }
}

#[async_trait]
impl Stores for InFiles {
    async fn fresh(&self) -> Box<dyn StoreSubject> {
        Box::new(FileSubject::new())
    }
}

/// A process that ends and comes back is the same object: what is in memory outlives it in the simulation too.
struct InMemory {
    partitions: u32,
}

struct MemoryLog(EmbeddedLog);
struct MemoryStore(EmbeddedStore);

#[async_trait]
impl LogSubject for MemoryLog {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.0.clone())
    }

    async fn reopen(&mut self) {}

    async fn obstruct(&mut self, obstructed: bool) -> bool {
        self.0.execute(query_only(obstructed)).await.unwrap();
        true
    }
}

#[async_trait]
impl StoreSubject for MemoryStore {
    fn store(&self) -> Arc<dyn ReadingStore> {
        Arc::new(self.0.clone())
    }

    async fn reopen(&mut self) {}

    async fn obstruct(&mut self, obstructed: bool) -> bool {
        self.0.execute(query_only(obstructed)).await.unwrap();
        true
    }
}

#[async_trait]
impl Logs for InMemory {
    async fn fresh(&self) -> Box<dyn LogSubject> {
        Box::new(MemoryLog(in_memory(self.partitions, 7).unwrap().0))
    }
}

#[async_trait]
impl Stores for InMemory {
    async fn fresh(&self) -> Box<dyn StoreSubject> {
        Box::new(MemoryStore(in_memory(self.partitions, 7).unwrap().1))
    }
}

#[tokio::test]
async fn the_log_in_memory_conforms() {
    for partitions in [1, 4] {
        let memory = InMemory { partitions };
        crate::log::conformance::run_all(&memory, &memory).await;
    }
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    crate::store::conformance::run_all(&InMemory { partitions: 1 }).await;
}

/// The disturbed runs use the store in memory: every one makes new files else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_a_file_conforms() {
    crate::log::conformance::run_all(&InFiles, &InMemory { partitions: 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_file_conforms() {
    crate::store::conformance::run_all(&InFiles).await;
}
