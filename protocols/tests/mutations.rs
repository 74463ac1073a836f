//! Every fuzz target over its corpus and over seeded mutations of it, on a stable compiler.
//!
//! `MUTATIONS` sets how many each target gets, `MUTATIONS_SEED` the seed. On failure the target, the seed, the number of the mutation
//! and the input are printed; the same seed and count bring the same inputs.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};

const MUTATIONS: u64 = 100_000;
const SEED: u64 = 0x5eed_0001;

/// Inputs do not grow beyond this: longer ones only repeat.
const LEN_MAX: usize = 8 * 1024;

/// What all targets together may ever hold. They need a tenth of it; a count that is believed costs far more.
const MEMORY_KB_MAX: u64 = 64 * 1024;

/// Values at which lengths and counts go wrong.
const EDGES: [u8; 12] = [0x00, 0x01, 0x02, 0x0f, 0x10, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xfe, 0xff];

/// xorshift64* of S. Vigna; never zero.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not zero.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from((self.next() >> 33) % limit as u64).expect("less than a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// A range of up to 32 octets inside `len`, which is not zero; never empty.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        let end = start + 1 + self.below(32.min(len - start));
        start..end
    }
}

/// One to eight changes, most often few.
fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    let changes = 1 + (random.next().leading_zeros() as usize).min(7);
    for _ in 0..changes {
        if input.is_empty() {
            input.push(random.byte());
        }
        change(random, &mut input, corpus);
        input.truncate(LEN_MAX);
    }
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len());
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.byte(),
        2 => input[at] = EDGES[random.below(EDGES.len())],
        3 => {
            let inserted: Vec<u8> = (0..=random.below(8)).map(|_| random.byte()).collect();
            input.splice(at..at, inserted);
        }
        4 => {
            input.drain(random.range(input.len()));
        }
        5 => {
            let copied = input[random.range(input.len())].to_vec();
            input.splice(at..at, copied);
        }
        6 => splice(random, input, corpus, at),
        7 => tweak_length(random, input, at),
        _ => tweak_number(random, input, at),
    }
}

/// Goes on as another example does from some point on, or takes a piece of it.
fn splice(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>], at: usize) {
    let other = &corpus[random.below(corpus.len())];
    if other.is_empty() {
        return;
    }
    let piece = random.range(other.len());
    if random.below(2) == 0 {
        input.truncate(at);
        input.extend(&other[piece.start..]);
    } else {
        input.splice(at..at, other[piece].iter().copied());
    }
}

/// A length field is a little too long or too short, or promises far more than there is.
fn tweak_length(random: &mut Random, input: &mut [u8], at: usize) {
    let step = 1 + random.below(3) as u8;
    match (random.below(4), input.get_mut(at..at + 2)) {
        (0, _) => input[at] = input[at].wrapping_add(step),
        (1, _) => input[at] = input[at].wrapping_sub(step),
        (2, Some(field)) => {
            field.copy_from_slice(&[[0xff, 0xff], [0x7f, 0xff], [0x80, 0x00], [0x00, 0x00]][random.below(4)]);
        }
        (_, Some(field)) => {
            let value = u16::from_be_bytes([field[0], field[1]]).wrapping_add(u16::from(step));
            field.copy_from_slice(&value.to_be_bytes());
        }
        (_, None) => input[at] = 0xff,
    }
}

/// The nearest number in a text changes, grows, or loses its point.
fn tweak_number(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(digit) = input[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    match random.below(5) {
        0 => input[digit] = b'0' + random.below(10) as u8,
        1 => {
            let digits = vec![b'9'; 1 + random.below(24)];
            input.splice(digit..digit, digits);
        }
        2 => input.insert(digit, b'-'),
        3 => input.insert(digit, b'.'),
        _ => {
            input.splice(digit..digit, *b"1e3");
        }
    }
}

/// Says what was being tried when a target panicked.
struct Attempt<'a> {
    target: &'a str,
    what: String,
    input: &'a [u8],
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} failed on {}:\n\"{}\"", self.target, self.what, self.input.escape_ascii());
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("the file can be read")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn run(name: &str, target: fn(&[u8]), seed: u64, mutations: u64) {
    let files = corpus(name);
    for (file, input) in &files {
        let _attempt = Attempt { target: name, what: format!("corpus file {file}"), input };
        target(input);
    }
    let inputs: Vec<_> = files.into_iter().map(|(_, input)| input).collect();
    let mut random = Random::new(seed);
    for number in 0..mutations {
        let input = mutate(&mut random, &inputs);
        let _attempt = Attempt { target: name, what: format!("mutation {number} of seed {seed}"), input: &input };
        target(&input);
    }
}

/// The most memory that this process ever held, where the system says it.
fn memory_kb_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

// Negative control for the memory: fill in `Data::decode` what an array announces.
#[test]
fn every_target_survives_its_corpus_and_mutations_of_it() {
    let (seed, mutations) = (setting("MUTATIONS_SEED", SEED), setting("MUTATIONS", MUTATIONS));
    std::thread::scope(|scope| {
        for &(name, target) in targets::TARGETS {
            scope.spawn(move || run(name, target, seed, mutations));
        }
    });
    let peak_kb = memory_kb_peak().unwrap_or(0);
    assert!(peak_kb <= MEMORY_KB_MAX, "{peak_kb} kB");
    println!("{peak_kb} kB at the most");
}

#[test]
fn every_target_is_a_binary_of_the_fuzz_crate() {
    let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("{{ name = \"{name}\", ")), "{name} is missing in fuzz/Cargo.toml");
    }
    assert_eq!(manifest.matches("{ name = ").count(), targets::TARGETS.len());
}

#[test]
fn the_same_seed_brings_the_same_inputs() {
    let corpus = vec![b"/X\r\n1-0:1.8.0(12.5*kWh)\r\n!\r\n".to_vec(), b"{}".to_vec()];
    let of = |seed| -> Vec<_> {
        let mut random = Random::new(seed);
        (0..1000).map(|_| mutate(&mut random, &corpus)).collect()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let changed = of(1).iter().filter(|input| !corpus.contains(input)).count();
    assert!(changed > 900, "{changed} of 1000 inputs are new");
}
