use super::*;
use crate::dlms::security::{Ciphered, CipheredConfig, Counter, Key, Keys, Level, Plain, ReceivedCounters, hex};

const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
/// The challenges of the Green Book's examples, "K56iVagY" of the client and "P6wRJ21F" of the server.
const C_TO_S: &[u8] = b"K56iVagY";
const S_TO_C: &[u8] = b"P6wRJ21F";
const SECRET: &str = "a secret of 23 octets!!";

/// A client and a server that have met, with the counters of the examples.
fn sides() -> (Ciphered, Ciphered) {
    let key = |text| Key::from_hex(text).unwrap();
    let keys = Keys::new(key("000102030405060708090A0B0C0D0E0F"), key("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"));
    let config = |title| CipheredConfig { level: Level::NONE, ..CipheredConfig::new(keys.clone(), title) };
    let counter = |first| Counter::reserved(first, first + 10);
    let mut client = Ciphered::client(config(CLIENT), counter(1), ReceivedCounters::default()).unwrap();
    let mut server = Ciphered::server(config(SERVER), counter(0x0123_4567), ReceivedCounters::default()).unwrap();
    client.begin(false, Level::NONE).unwrap();
    server.begin(false, Level::NONE).unwrap();
    client.meet(Some(&SERVER.0)).unwrap();
    server.meet(Some(&CLIENT.0)).unwrap();
    (client, server)
}

fn all() -> [HighLevel; 5] {
    let secret = || Password::new(SECRET);
    [
        HighLevel::Manufacturer(secret()),
        HighLevel::Md5(secret()),
        HighLevel::Sha1(secret()),
        HighLevel::Gmac,
        HighLevel::Sha256(secret()),
    ]
}

/// DLMS UA 1000-2 (Green Book) ed. 8, "HLS example using authentication-mechanism 5 with GMAC", as the tests of jDLMS print it.
#[test]
fn the_example_of_the_green_book_for_gmac_is_met_by_both_sides() {
    let (mut client, mut server) = sides();
    let pass_3 = HighLevel::Gmac.prove(&mut client, C_TO_S, S_TO_C).unwrap();
    assert_eq!(pass_3, hex("10 00000001 1A52FE7DD3E72748973C1E28"));
    let pass_4 = HighLevel::Gmac.prove(&mut server, S_TO_C, C_TO_S).unwrap();
    assert_eq!(pass_4, hex("10 01234567 FE1466AFB3DBCD4F9389E2B7"));
    assert_eq!(HighLevel::Gmac.verify(&server, S_TO_C, C_TO_S, &pass_3), Ok(()));
    assert_eq!(HighLevel::Gmac.verify(&client, C_TO_S, S_TO_C, &pass_4), Ok(()));
}

/// What Python's hashlib makes of the concatenations of IEC 62056-5-3.
#[test]
fn digests_are_of_challenge_and_secret_and_where_it_is_so_of_the_titles() {
    let (mut client, mut server) = sides();
    let [_, md5, sha1, _, sha256] = all();
    let pass_3 = |how: &HighLevel, client: &mut Ciphered| how.prove(client, C_TO_S, S_TO_C).unwrap();
    assert_eq!(pass_3(&md5, &mut client), hex("6515140b540e5fb53ffecc5d6d886328"));
    assert_eq!(pass_3(&sha1, &mut client), hex("fb8c5e0df2a6023954f6101b7d8b839bffce71c8"));
    let golden = "986b0c769e3b80720ec2261bd43e694b2a19cfb470046199508552e28dcc513c";
    assert_eq!(pass_3(&sha256, &mut client), hex(golden));
    let golden = "7039a9352cbd2e3972bdff53249e1386320fc7e915490e4505c01150ff7f2a8b";
    assert_eq!(sha256.prove(&mut server, S_TO_C, C_TO_S).unwrap(), hex(golden));
}

/// What `GXSecure.secure` of gurux-dlms 1.0.203 for Python answers with the authentication HIGH.
#[test]
fn the_mechanism_of_makers_is_the_one_of_gurux() {
    for (challenge, secret, golden) in [
        (S_TO_C, "12345678", "581b1129ee22c77fe02aeb1798c158b9"),
        (b"0123456789abcdef0", "ABCDEFGHIJKLMNOP", "39b39d6f02e12dc4ecea178484adfcc00e6e49e9c0af75a5d9d451f56dc36d58"),
        (S_TO_C, SECRET, "7e205909f340dcbda8eb4b56b7784af7636adae9d77ceb9e0af08c859c1123f5"),
    ] {
        let how = HighLevel::Manufacturer(Password::new(secret));
        assert_eq!(how.prove(&mut Plain, C_TO_S, challenge), Ok(hex(golden)));
    }
}

#[test]
fn each_mechanism_convinces_who_has_the_same_secret_and_nobody_else() {
    for how in all() {
        let (mut client, mut server) = sides();
        let proof = how.prove(&mut client, C_TO_S, S_TO_C).unwrap();
        assert_eq!(how.verify(&server, S_TO_C, C_TO_S, &proof), Ok(()), "{how:?}");
        for bit in 0..proof.len() * 8 {
            let mut flipped = proof.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(how.verify(&server, S_TO_C, C_TO_S, &flipped).is_err(), "{how:?}, bit {bit}");
        }
        assert!(how.verify(&server, b"P6wRJ21G", C_TO_S, &proof).is_err(), "{how:?}: another challenge");
        assert!(how.verify(&server, S_TO_C, C_TO_S, &[]).is_err());
        let answer = how.prove(&mut server, S_TO_C, C_TO_S).unwrap();
        assert_eq!(how.verify(&client, C_TO_S, S_TO_C, &answer), Ok(()), "{how:?}");
        assert_ne!(answer, proof);
    }
}

// Negative control: leave out the comparison of the challenges.
#[test]
fn a_proof_of_our_own_sent_back_proves_nothing() {
    for how in all() {
        let (mut client, _) = sides();
        let proof = how.prove(&mut client, C_TO_S, C_TO_S).unwrap();
        assert_eq!(how.verify(&client, C_TO_S, C_TO_S, &proof), Err(ProtectionError::Proof), "{how:?}");
    }
}

/// What the client and what the server is configured with.
fn signing(curve_octets: usize) -> (HighLevel, HighLevel) {
    let key = |octet| SigningKey::from_octets(&vec![octet; curve_octets]).unwrap();
    let (client, server) = (key(1), key(2));
    let (of_client, of_server) = (client.verifying_key(), server.verifying_key());
    (HighLevel::Ecdsa { ours: client, theirs: of_server }, HighLevel::Ecdsa { ours: server, theirs: of_client })
}

#[test]
fn signatures_convince_who_has_the_other_half_of_the_key() {
    for curve_octets in [32, 48] {
        let (client_how, server_how) = signing(curve_octets);
        let (mut client, mut server) = sides();
        let pass_3 = client_how.prove(&mut client, C_TO_S, S_TO_C).unwrap();
        assert_eq!(pass_3.len(), 2 * curve_octets);
        assert_eq!(server_how.verify(&server, S_TO_C, C_TO_S, &pass_3), Ok(()));
        let pass_4 = server_how.prove(&mut server, S_TO_C, C_TO_S).unwrap();
        assert_eq!(client_how.verify(&client, C_TO_S, S_TO_C, &pass_4), Ok(()));
        // Neither its own signature, nor one of another challenge, nor an altered one.
        assert!(client_how.verify(&client, C_TO_S, S_TO_C, &pass_3).is_err());
        assert!(server_how.verify(&server, b"P6wRJ21G", C_TO_S, &pass_3).is_err());
        for at in 0..pass_3.len() {
            let mut flipped = pass_3.clone();
            flipped[at] ^= 0x10;
            assert!(server_how.verify(&server, S_TO_C, C_TO_S, &flipped).is_err(), "octet {at}");
        }
        assert_eq!(client_how.prove(&mut Plain, C_TO_S, S_TO_C), Err(ProtectionError::NoTitle));
        assert_eq!(client_how.mechanism(), Mechanism::HighEcdsa);
    }
}

#[test]
fn without_titles_or_keys_there_is_no_proof_that_needs_them() {
    let [.., gmac, sha256] = all();
    assert_eq!(sha256.prove(&mut Plain, C_TO_S, S_TO_C), Err(ProtectionError::NoTitle));
    assert!(matches!(gmac.prove(&mut Plain, C_TO_S, S_TO_C), Err(ProtectionError::MissingKey { .. })));
    assert!(gmac.verify(&Plain, C_TO_S, S_TO_C, &[0; 17]).is_err());
}

#[test]
fn a_challenge_has_8_to_64_octets_and_is_not_shown() {
    for len in 0..100 {
        let challenge = Challenge::new(vec![0xa5; len]);
        assert_eq!(challenge.is_ok(), (8..=64).contains(&len), "{len}");
        assert!(!format!("{challenge:?}").contains("165"));
    }
    assert_eq!(Challenge::new([0; 7]), Err(ChallengeError { len: 7 }));
    for how in all() {
        assert!(!format!("{how:?}").contains("secret"), "{how:?}");
    }
}
