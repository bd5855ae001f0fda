//! Thumbnails: the usual ones are made after an upload, all others when they are first asked for. They
//! are kept.

use std::{io::Cursor, path::Path};

use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    imageops::FilterType, metadata::Orientation,
};
use tokio::sync::{Mutex, mpsc};

use super::{
    Error, Media, Served,
    download::{self, Wanted},
};
use crate::storage::{self, media::Thumbnail};

/// Frames that thumbnails are made for (specification, "Thumbnails"); the smallest that is large
/// enough is taken, so that whoever asks for every size there is gets few.
const SCALED: [(u32, u32); 3] = [(320, 240), (640, 480), (800, 600)];
/// Frames that are filled. The larger ones are for clients that crop what they show large.
const CROPPED: [(u32, u32); 5] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600)];
/// Those that the specification recommends to have before they are asked for.
const USUAL: [Frame; 5] = [
    Frame::of(32, 32, true),
    Frame::of(96, 96, true),
    Frame::of(320, 240, false),
    Frame::of(640, 480, false),
    Frame::of(800, 600, false),
];
/// What uploads are called of which they are made.
const USUAL_KINDS: [&str; 4] = ["image/jpeg", "image/png", "image/webp", "image/gif"];
/// Uploads that wait for it; there are more in bad times only, and their thumbnails are made when they
/// are asked for.
const WAITING_MAX: usize = 200;
/// Bytes of a file that a thumbnail is made of: decoders hold some formats whole.
const SOURCE_BYTES_MAX: u64 = 64 << 20;
/// Pixels of an image: what good cameras make, and no bomb.
const PIXELS_MAX: u64 = 60_000_000;
/// Bytes that a decoder may take.
const DECODER_BYTES_MAX: u64 = 300 << 20;
/// Quality of thumbnails without transparency.
const JPEG_QUALITY: u8 = 82;

/// What a thumbnail is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    width: u32,
    height: u32,
    crop: bool,
}

/// Uploads whose usual thumbnails are still to be made, by media id.
#[derive(Debug)]
pub(super) struct Waiting {
    ids: mpsc::Sender<String>,
    next: Mutex<mpsc::Receiver<String>>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        let (ids, next) = mpsc::channel(WAITING_MAX);
        Self {
            ids,
            next: Mutex::new(next),
        }
    }

    /// Notes an upload that calls itself an image.
    pub(super) fn add(&self, id: &str, content_type: Option<&str>) {
        if content_type.is_some_and(|kind| USUAL_KINDS.contains(&kind)) {
            // Full: see there.
            let _ = self.ids.try_send(id.to_owned());
        }
    }
}

/// What came of making a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Made,
    NotAnImage,
    Failed,
}

impl Frame {
    /// The frame for a wish.
    pub fn new(width: u64, height: u64, crop: bool) -> Self {
        let frames: &[(u32, u32)] = if crop { &CROPPED } else { &SCALED };
        let enough = |(w, h): &&(u32, u32)| u64::from(*w) >= width && u64::from(*h) >= height;
        let found = frames.iter().find(enough).or(frames.last());
        let (width, height) = found.copied().unwrap_or((96, 96));
        Self::of(width, height, crop)
    }

    const fn of(width: u32, height: u32, crop: bool) -> Self {
        Self {
            width,
            height,
            crop,
        }
    }

    fn sides(self) -> (i32, i32) {
        (self.width.cast_signed(), self.height.cast_signed())
    }
}

/// The thumbnail of an address.
pub async fn open(media: &Media, wanted: Wanted<'_>, frame: Frame) -> Result<Served, Error> {
    let row = download::find(media, wanted).await?;
    if let Some(found) = find(media, row.nid, frame).await? {
        return serve(media, found).await;
    }
    let outcome = media
        .0
        .outcomes
        .get_with((row.nid, frame), make(media, &row, frame))
        .await;
    match outcome {
        Outcome::Made => match find(media, row.nid, frame).await? {
            Some(found) => serve(media, found).await,
            None => Err(Error::NotFound),
        },
        Outcome::NotAnImage => Err(Error::NotAnImage),
        Outcome::Failed => {
            // A full disk or a lost database is not remembered.
            media.0.outcomes.invalidate(&(row.nid, frame)).await;
            Err(Error::Disk(std::io::Error::other("no thumbnail was kept")))
        }
    }
}

/// Makes the usual thumbnails of uploads, one upload after the other, for as long as the server runs. What
/// was not begun when it stops is made when it is asked for.
pub async fn make_usual(media: Media) {
    let mut next = media.0.waiting.next.lock().await;
    while let Some(id) = next.recv().await {
        match try_make_usual(&media, &id).await {
            Ok(()) | Err(Error::NotAnImage | Error::NotFound) => {}
            Err(error) => tracing::warn!(%error, "thumbnails of an upload were not made"),
        }
    }
}

async fn try_make_usual(media: &Media, id: &str) -> Result<(), Error> {
    let own = media.own_nid().await?;
    let mut conn = media.ctx().db.conn().await?;
    let row = storage::media::find(&mut conn, own, id).await?;
    drop(conn);
    let row = row.ok_or(Error::NotFound)?;
    if row.quarantined_by.is_some() {
        return Ok(());
    }
    try_make(media, &row, Frames::Usual).await
}

async fn find(media: &Media, nid: i64, frame: Frame) -> Result<Option<Thumbnail>, Error> {
    let mut conn = media.ctx().db.conn().await?;
    Ok(storage::media::find_thumbnail(&mut conn, nid, frame.sides(), frame.crop).await?)
}

async fn serve(media: &Media, found: Thumbnail) -> Result<Served, Error> {
    let extension = found.content_type.trim_start_matches("image/");
    let names = (
        Some(found.content_type.clone()),
        Some(format!("thumbnail.{extension}")),
    );
    media.serve(found.blob, found.size, names).await
}

async fn make(media: &Media, row: &storage::media::Media, frame: Frame) -> Outcome {
    match try_make(media, row, Frames::Asked(frame)).await {
        Ok(()) => Outcome::Made,
        Err(Error::NotAnImage) => Outcome::NotAnImage,
        Err(error) => {
            tracing::error!(%error, "a thumbnail was not made");
            Outcome::Failed
        }
    }
}

/// Which thumbnails are made.
enum Frames {
    /// The one that was asked for.
    Asked(Frame),
    /// Those of which there is something to make smaller.
    Usual,
}

impl Frames {
    fn of(self, image: &Decoded) -> Vec<Frame> {
        match self {
            Self::Asked(frame) => vec![frame],
            Self::Usual => {
                let is_smaller = |frame: &Frame| {
                    let frame = lying(*frame, image.orientation);
                    image.pixels.width() > frame.width || image.pixels.height() > frame.height
                };
                USUAL.into_iter().filter(is_smaller).collect()
            }
        }
    }
}

/// A thumbnail's bytes, and what they are.
type Rendered = (Vec<u8>, &'static str);

async fn try_make(media: &Media, row: &storage::media::Media, frames: Frames) -> Result<(), Error> {
    let blob = row.blob.ok_or(Error::NotFound)?;
    if u64::try_from(row.size).unwrap_or(0) > SOURCE_BYTES_MAX {
        return Err(Error::NotAnImage);
    }
    let permit = media.0.decoders.acquire().await;
    let _permit = permit.map_err(|_| Error::NotAnImage)?;
    let size = u64::try_from(row.size).unwrap_or(0);
    let file = media
        .0
        .blobs
        .local(blob, size)
        .await
        .map_err(Error::reading)?;
    let work = tokio::task::spawn_blocking(move || {
        let image = decode(file.path())?;
        let frames = frames.of(&image).into_iter();
        let all = frames.map(|frame| Ok((frame, render(&image, frame)?)));
        all.collect::<Result<Vec<(Frame, Rendered)>, Error>>()
    });
    // A decoder that panics has met a bad image.
    for (frame, rendered) in work.await.map_err(|_| Error::NotAnImage)?? {
        keep(media, row.nid, frame, rendered).await?;
    }
    Ok(())
}

async fn keep(
    media: &Media,
    nid: i64,
    frame: Frame,
    (bytes, content_type): Rendered,
) -> Result<(), Error> {
    let mut draft = media.draft().await?;
    draft.write(&bytes).await?;
    let blob = draft.finish().await?;
    let thumbnail = Thumbnail {
        blob: blob.id,
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        content_type: content_type.to_owned(),
    };
    let mut conn = media.ctx().db.conn().await?;
    let sides = frame.sides();
    storage::media::insert_thumbnail(&mut conn, nid, sides, frame.crop, &thumbnail).await?;
    Ok(())
}

/// An image, as the file has it.
struct Decoded {
    pixels: DynamicImage,
    /// How it is to be turned.
    orientation: Orientation,
    is_png: bool,
}

fn not_an_image(_: image::ImageError) -> Error {
    Error::NotAnImage
}

fn decode(path: &Path) -> Result<Decoded, Error> {
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let is_png = reader.format() == Some(ImageFormat::Png);
    // Reads the header only.
    let mut decoder = reader.into_decoder().map_err(not_an_image)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(Error::NotAnImage);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok(Decoded {
        pixels: DynamicImage::from_decoder(decoder).map_err(not_an_image)?,
        orientation,
        is_png,
    })
}

/// Scales, turns, encodes. Thumbnails are small: these bytes may be in memory.
fn render(image: &Decoded, frame: Frame) -> Result<Rendered, Error> {
    let mut small = fit(&image.pixels, lying(frame, image.orientation));
    small.apply_orientation(image.orientation);
    let mut bytes = Vec::new();
    let has_alpha = small.color().has_alpha();
    // What was sharp stays sharp, and what shines through goes on doing so.
    if image.is_png || has_alpha {
        let image = if has_alpha {
            DynamicImage::from(small.into_rgba8())
        } else {
            DynamicImage::from(small.into_rgb8())
        };
        let mut out = Cursor::new(&mut bytes);
        image
            .write_to(&mut out, ImageFormat::Png)
            .map_err(not_an_image)?;
        return Ok((bytes, "image/png"));
    }
    let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    let written = small.into_rgb8().write_with_encoder(encoder);
    written.map_err(not_an_image)?;
    Ok((bytes, "image/jpeg"))
}

/// The frame for an image that is turned by a quarter afterwards.
fn lying(frame: Frame, orientation: Orientation) -> Frame {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => Frame {
            width: frame.height,
            height: frame.width,
            crop: frame.crop,
        },
        _ => frame,
    }
}

/// Fits an image into its frame, or fills it. Nothing is made larger than it is.
fn fit(image: &DynamicImage, frame: Frame) -> DynamicImage {
    let (width, height) = (image.width(), image.height());
    let (most_w, most_h) = (frame.width, frame.height);
    if width <= most_w && height <= most_h {
        return image.clone();
    }
    if !frame.crop {
        return image.resize(most_w, most_h, FilterType::Triangle);
    }
    if width < most_w || height < most_h {
        let (w, h) = (width.min(most_w), height.min(most_h));
        return image.crop_imm((width - w) / 2, (height - h) / 2, w, h);
    }
    image.resize_to_fill(most_w, most_h, FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, metadata::Orientation};

    use super::{Frame, fit, lying};

    fn sides(image: (u32, u32), frame: Frame) -> (u32, u32) {
        let small = fit(&DynamicImage::new_rgb8(image.0, image.1), frame);
        (small.width(), small.height())
    }

    #[test]
    fn a_wish_gets_the_smallest_frame_that_is_enough() {
        let frame = |w, h, crop| Frame::new(w, h, crop).sides();
        assert_eq!(frame(30, 30, true), (32, 32));
        assert_eq!(frame(33, 1, true), (96, 96));
        assert_eq!(frame(30, 30, false), (320, 240));
        assert_eq!(frame(640, 480, false), (640, 480));
        assert_eq!(frame(u64::MAX, 1, false), (800, 600));
    }

    #[test]
    fn images_fit_or_fill_and_never_grow() {
        assert_eq!(sides((1600, 400), Frame::new(800, 600, false)), (800, 200));
        assert_eq!(sides((1600, 400), Frame::new(96, 96, true)), (96, 96));
        assert_eq!(sides((10, 20), Frame::new(800, 600, false)), (10, 20));
        assert_eq!(sides((10, 20), Frame::new(96, 96, true)), (10, 20));
        assert_eq!(sides((1600, 40), Frame::new(96, 96, true)), (96, 40));
        let turned = lying(Frame::new(320, 240, false), Orientation::Rotate90);
        assert_eq!(turned.sides(), (240, 320));
    }
}
