use protocols::dlms::server::ClientRole;

use super::*;
use crate::commands::change::tests::{events, site};
use crate::reading::testing::image::{BLOCK_SIZE, sound_image};

fn options(file: &Path) -> ImageOptions {
    ImageOptions { file: file.to_owned(), identifier: None, activate: true, restart: false, yes: true }
}

/// What was printed, or the error.
async fn outcome(checked: &Checked, options: &ImageOptions) -> Result<String, String> {
    let mut out = Vec::new();
    match image(checked, "m", options, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Controls, seen to fail: the book forgotten between two attempts; no event before.
#[tokio::test]
async fn an_image_is_brought_in_as_many_attempts_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), "").await;
    let file = folder.path().join("FW-2.bin");
    let octets = sound_image(5 * BLOCK_SIZE + 1);
    std::fs::write(&file, &octets).unwrap();
    body.lock().unwrap().image.refuses_after = Some(2);
    let error = outcome(&checked, &options(&file)).await.unwrap_err();
    assert!(error.starts_with("m: sending a block: meter refused: "), "{error}");
    body.lock().unwrap().image.refuses_after = None;

    // The same file under another name, and another one under the same.
    let renamed = ImageOptions { identifier: Some("hex:0102".to_owned()), ..options(&file) };
    let error = outcome(&checked, &renamed).await.unwrap_err();
    assert!(error.starts_with("m: another transfer is under way, of FW-2, 251 octets\nhint: --restart"), "{error}");
    std::fs::write(&file, sound_image(5 * BLOCK_SIZE + 2)).unwrap();
    let error = outcome(&checked, &options(&file)).await.unwrap_err();
    assert!(error.starts_with("m: another transfer is under way\nhint: --restart"), "{error}");
    std::fs::write(&file, &octets).unwrap();

    let text = outcome(&checked, &options(&file)).await.unwrap();
    for line in [
        "before                 transfer initiated\n",
        "image                  FW-2, 251 octets, CRC-32 ",
        "after                  active\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let body = body.lock().unwrap();
    assert_eq!((&body.image.octets, &body.image.received), (&octets, &vec![0, 1, 2, 3, 4, 5]));
    let events = events(&checked);
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 2, 0, 2, 0, 2, 0, 1]);
    assert_eq!(
        events[0].2,
        "about to bring image FW-2, 251 octets and activate it by hand; before: no transfer initiated"
    );
    assert!(events[7].2.ends_with("by hand: done; the image is active"), "{}", events[7].2);
    let book = std::fs::read_to_string(folder.path().join("images.json")).unwrap();
    assert_eq!(book, "{}", "nothing is under way");
}

/// Negative control: forget what was verified.
#[tokio::test]
async fn an_image_that_the_meter_names_otherwise_is_activated_a_day_later() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), "").await;
    let file = folder.path().join("FW-4.bin");
    std::fs::write(&file, sound_image(3 * BLOCK_SIZE)).unwrap();
    body.lock().unwrap().image.listed_as = Some(ImageId { identifier: b"BOOT".to_vec(), size: 40 });
    let text = outcome(&checked, &ImageOptions { activate: false, ..options(&file) }).await.unwrap();
    assert!(text.contains("after                  verified, and not activated\n"), "{text}");
    let text = outcome(&checked, &options(&file)).await.unwrap();
    assert!(text.contains("after                  active\n"), "{text}");
    assert_eq!(body.lock().unwrap().image.received, [0, 1, 2], "nothing is sent twice");
    // Nobody knows the next one.
    std::fs::write(&file, sound_image(2 * BLOCK_SIZE)).unwrap();
    let verified = ImageOptions { activate: false, ..options(&file) };
    outcome(&checked, &verified).await.unwrap();
    std::fs::remove_file(folder.path().join("images.json")).unwrap();
    let error = outcome(&checked, &options(&file)).await.unwrap_err();
    assert_eq!(
        error,
        "m: another transfer is under way, of BOOT, 40 octets\nhint: --restart gives that up; who has begun it?"
    );
}

#[tokio::test]
async fn what_is_no_image_for_the_meter_is_told_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), "").await;
    let file = folder.path().join("FW-3.bin");
    std::fs::write(&file, []).unwrap();
    let error = outcome(&checked, &options(&file)).await.unwrap_err();
    assert!(error.contains("FW-3.bin has no octets\nhint: "), "{error}");
    let mut wrong = sound_image(3 * BLOCK_SIZE);
    wrong[0] ^= 1;
    std::fs::write(&file, &wrong).unwrap();
    let error = outcome(&checked, &options(&file)).await.unwrap_err();
    assert_eq!(error, "m: the meter says: verification failed\nhint: is it an image for this meter?");
    let bad = ImageOptions { identifier: Some("hex:1".to_owned()), ..options(&file) };
    assert_eq!(outcome(&checked, &bad).await.unwrap_err(), "\"1\" are no hexadecimal digits");
    let absent = options(&folder.path().join("nowhere"));
    assert!(outcome(&checked, &absent).await.unwrap_err().starts_with("cannot read "));
    // Whoever may not is told whom to name.
    body.lock().unwrap().setter = Some(ClientRole::Manager);
    let error = outcome(&checked, &ImageOptions { restart: true, ..options(&file) }).await.unwrap_err();
    assert!(error.contains("meter refused: ") && error.contains("hint: may this client transfer images?"), "{error}");
}
