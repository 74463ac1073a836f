use proptest::prelude::*;

use super::*;
use crate::sml::Scanner;

/// A file of this content.
fn file(content: &[u8]) -> Vec<u8> {
    encode_file(content, CrcAlgorithm::X25)
}

/// Contents of the files of a stream that count, errors, and how many octets were none of a file or left.
fn walk(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<FrameError>, usize) {
    let (mut contents, mut errors, mut lost) = (Vec::new(), Vec::new(), 0);
    loop {
        let used = match scan(bytes) {
            Scan::NeedMore => return (contents, errors, lost + bytes.len()),
            Scan::File { file, used } => {
                if file.judge(Policy::default(), Quirks::NONE).is_ok() {
                    contents.push(file.content().into_owned());
                }
                used
            }
            Scan::Garbage { skip, error } => {
                errors.push(error);
                lost += skip;
                skip
            }
        };
        assert!(used > 0 && used <= bytes.len());
        bytes = &bytes[used..];
    }
}

/// The same by a [`Scanner`] that is fed in pieces of these lengths, over and over.
fn walk_in_pieces(mut bytes: &[u8], lengths: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let (mut scanner, mut contents, mut lost) = (Scanner::default(), Vec::new(), 0);
    for &len in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, after) = bytes.split_at(len.min(bytes.len()));
        scanner.feed(piece);
        bytes = after;
        loop {
            let before = scanner.pending();
            match scanner.next_file() {
                None => break,
                Some(Ok(file)) => {
                    if file.judge(Policy::default(), Quirks::NONE).is_ok() {
                        contents.push(file.content().into_owned());
                    }
                }
                Some(Err(_)) => lost += before - scanner.pending(),
            }
        }
        assert!(scanner.pending() < FILE_LEN_MAX);
    }
    (contents, lost + scanner.pending())
}

// Vectors that the other implementation of this protocol documents as well.
#[test]
fn files_are_written_as_others_write_them() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    };
    for (content, sent) in [
        ("12345678", "1b1b1b1b 01010101 12345678 1b1b1b1b 1a00b87b"),
        ("", "1b1b1b1b 01010101 1b1b1b1b 1a00c6e5"),
        ("123456", "1b1b1b1b 01010101 12345600 1b1b1b1b 1a0191a5"),
        ("121b1b1b1b", "1b1b1b1b 01010101 12 1b1b1b1b 1b1b1b1b 000000 1b1b1b1b 1a03be25"),
        ("121b1b1bff", "1b1b1b1b 01010101 12 1b1b1bff 000000 1b1b1b1b 1a0324d9"),
        ("1234567812341b1b", "1b1b1b1b 01010101 12345678 12341b1b 1b1b1b1b 1a001ac5"),
    ] {
        assert_eq!(file(&hex(content)), hex(sent), "{content}");
        assert_eq!(walk(&hex(sent)), (vec![hex(content)], vec![], 0), "{content}");
    }
}

#[test]
fn every_prefix_needs_more() {
    let bytes = file(b"ab\x1b\x1b\x1b\x1b\x1b\x1b\x1bc\x1b\x1b");
    for len in 0..bytes.len() {
        assert_eq!(scan(&bytes[..len]), Scan::NeedMore, "{len}");
    }
}

#[test]
fn a_file_is_borrowed_unless_it_is_stuffed() {
    let (plain, stuffed) = (file(b"plain"), file(b"es\x1b\x1b\x1b\x1bcape"));
    let content = |bytes: &[u8]| matches!(SmlFile::parse(bytes).unwrap().content(), Cow::Borrowed(_));
    assert!(content(&plain) && !content(&stuffed));
}

#[test]
fn noise_before_a_file_is_skipped() {
    let bytes = [b"\x00\x1b\x1b\x01\x01\x01\x01\x1b".to_vec(), file(b"content")].concat();
    assert_eq!(walk(&bytes), (vec![b"content".to_vec()], vec![FrameError::Noise { len: 8 }], 8));
}

#[test]
fn a_cut_file_gives_way_to_the_next() {
    let whole = file(b"four and four and four");
    for len in 8..whole.len() {
        let bytes = [&whole[..len], &whole[..]].concat();
        let (contents, errors, lost) = walk(&bytes);
        assert_eq!(contents, [b"four and four and four".to_vec()], "{len}: {errors:?}");
        // With its two octets of CRC gone it swallows the start of the next one, and gives it back.
        assert!(lost == len || errors.is_empty(), "{len}: {lost} {errors:?}");
    }
}

// Negative control: use the whole of a file with a wrong CRC in `file`.
#[test]
fn an_octet_lost_anywhere_costs_that_file_only() {
    let contents: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 21 + usize::from(n)]).collect();
    let files: Vec<_> = contents.iter().map(|content| file(content)).collect();
    let (start, end) = (files[0].len(), files[0].len() + files[1].len());
    let stream = files.concat();
    for at in start..end {
        let mut damaged = stream.clone();
        damaged.remove(at);
        let expected = [0, 2, 3].map(|n| contents[n].clone());
        assert_eq!(walk(&damaged).0, expected, "lost octet {at}");
    }
}

#[test]
fn an_octet_changed_anywhere_costs_that_file_only() {
    let contents: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; 21]).collect();
    let files: Vec<_> = contents.iter().map(|content| file(content)).collect();
    let stream = files.concat();
    for at in files[0].len()..2 * files[0].len() {
        for value in [stream[at] ^ 0x01, stream[at] ^ 0x80, 0x1b, 0x1a] {
            let mut damaged = stream.clone();
            damaged[at] = value;
            let expected = if value == stream[at] { &[0, 1, 2][..] } else { &[0, 2] };
            let expected: Vec<_> = expected.iter().map(|&n| contents[n].clone()).collect();
            assert_eq!(walk(&damaged).0, expected, "octet {at} became {value:#04x}");
        }
    }
}

#[test]
fn two_files_that_have_become_one_by_a_lost_end_give_the_second() {
    let whole = file(b"content");
    let cut_in_its_end = [&whole[..whole.len() - 4], &whole[..]].concat();
    // Eight 1b in a row: the first file seems to go on.
    assert_eq!(walk(&cut_in_its_end).0, [b"content".to_vec()]);
}

#[test]
fn unknown_escapes_and_impossible_fill_are_refused() {
    let mut unknown = file(b"content");
    unknown[20] = 0x02;
    let (contents, errors, _) = walk(&unknown);
    assert!(contents.is_empty());
    assert_eq!(errors[0], FrameError::Escape { len: 20, octet: 0x02 });
    for fill in [5, 0xff] {
        let mut impossible = file(b"content");
        impossible[21] = fill;
        assert_eq!(walk(&impossible).1[0], FrameError::Fill { len: 24, fill });
    }
    let mut more_than_there_is = file(b"");
    more_than_there_is[13] = 1;
    assert_eq!(walk(&more_than_there_is).1[0], FrameError::Fill { len: 16, fill: 1 });
}

// Negative control: judge without looking at the fill.
#[test]
fn four_fill_octets_count_while_their_switch_is_on() {
    let mut bytes = file(b"content8\0\0\0\0");
    let crc_at = bytes.len() - 2;
    bytes[crc_at - 1] = 4;
    let crc = CrcAlgorithm::X25.of(&bytes[..crc_at]);
    bytes[crc_at..].copy_from_slice(&crc);
    let found = SmlFile::parse(&bytes).unwrap();
    assert_eq!(&*found.content(), b"content8");
    assert_eq!(found.judge(Policy::default(), Quirks::default()), Ok(Quality::GOOD));
    assert_eq!(found.judge(Policy::default(), Quirks::NONE), Err(FileError::Fill));
}

#[test]
fn a_file_has_so_many_octets_and_no_more() {
    let around = START.len() + ESCAPE_LEN + END_LEN;
    let content = vec![0x2a; FILE_LEN_MAX - around];
    assert_eq!(walk(&file(&content)), (vec![content.clone()], vec![], 0));
    let longer = [content, vec![0x2a; 4]].concat();
    let stream = [file(&longer), file(b"next")].concat();
    let (contents, errors, _) = walk(&stream);
    assert_eq!((contents, errors[0]), (vec![b"next".to_vec()], FrameError::TooLong));
    assert_eq!(walk_in_pieces(&stream, &[1]).0, [b"next".to_vec()]);
}

#[test]
fn a_start_inside_what_is_too_long_is_found() {
    let stream = [&START[..], &[0x2a; 8000], &file(b"next")].concat();
    assert_eq!(walk(&stream).0, [b"next".to_vec()]);
    assert_eq!(walk_in_pieces(&stream, &[700]).0, [b"next".to_vec()]);
}

#[test]
fn a_buffer_without_a_file_is_refused() {
    assert_eq!(SmlFile::parse(b""), Err(FrameError::Unfinished));
    assert_eq!(SmlFile::parse(b"noise"), Err(FrameError::Noise { len: 5 }));
    assert_eq!(SmlFile::parse(&file(b"content")[..20]), Err(FrameError::Unfinished));
}

/// Octets of which many are those that mean something.
fn octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![6 => Just(0x1b), 2 => Just(0x01), 1 => Just(0x1a), 1 => Just(0x00), 2 => any::<u8>()];
    prop::collection::vec(octet, len)
}

/// A stream of files and of what is none.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => octets(0..40).prop_map(|content| file(&content)),
        1 => octets(0..40),
        1 => (octets(0..40), any::<prop::sample::Index>()).prop_map(|(content, at)| {
            let mut cut = file(&content);
            cut.truncate(at.index(cut.len()));
            cut
        }),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    // Negative control: leave out `is_stuffed |= ..` in `find`.
    #[test]
    fn any_content_round_trips(content in octets(0..200)) {
        prop_assert_eq!(walk(&file(&content)), (vec![content.clone()], vec![], 0));
        let kermit = encode_file(&content, CrcAlgorithm::Kermit);
        let found = SmlFile::parse(&kermit).unwrap();
        prop_assert_eq!(found.crc(), CrcVerdict::Kermit);
        prop_assert_eq!(&*found.content(), &content[..]);
    }

    // Negative control: begin at the end of the buffer in `Progress` of a run that reaches it.
    #[test]
    fn pieces_of_any_size_equal_the_whole(bytes in stream(), lengths in prop::collection::vec(1..40usize, 1..8)) {
        let (contents, _, lost) = walk(&bytes);
        prop_assert_eq!(walk_in_pieces(&bytes, &lengths), (contents, lost));
    }

    #[test]
    fn a_whole_file_after_anything_that_is_no_beginning_is_found(noise in octets(0..60), content in octets(0..60)) {
        let stream = [&noise[..], b"\0", &file(&content)].concat();
        let (contents, ..) = walk(&stream);
        prop_assert_eq!(contents.last(), Some(&content));
    }
}
