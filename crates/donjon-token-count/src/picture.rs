//! The tokens of an image.

use donjon_core::ImageUrl;

use crate::{count::Count, image::Size, rules::ImageRule};

/// What an image whose size nobody knows is taken for.
const UNKNOWN: Size = Size {
    width: 1_024,
    height: 1_024,
};

/// The tokens of an image. One at an address is taken for 1,024 × 1,024 pixels; its count is an
/// estimate that may be twice as much.
pub(crate) fn tokens(rule: ImageRule, image: &ImageUrl) -> Count {
    let detail = image.detail.as_deref();
    let rule = match (rule, detail) {
        (ImageRule::Tiles { base, .. }, Some("low")) => return Count::Exact(base.into()),
        (ImageRule::Fixed { tokens }, _) => return Count::within(tokens.into(), tokens.into()),
        (ImageRule::Patches { percent, high, .. }, Some("low")) => {
            let most = high.min(LOW_PATCHES);
            let rule = ImageRule::Patches {
                percent,
                most,
                high,
            };
            let size = Size::of_url(&image.url).unwrap_or(UNKNOWN);
            let tokens = of_size(rule, size);
            return Count::within(tokens, tokens);
        }
        (ImageRule::Patches { percent, high, .. }, Some("high")) => {
            let most = high;
            ImageRule::Patches {
                percent,
                most,
                high,
            }
        }
        (rule, _) => rule,
    };
    match Size::of_url(&image.url) {
        Some(size) => {
            let tokens = of_size(rule, size);
            // What was reported of larger images is up to two fifths lower.
            let slack = if fits(rule, size) { 0 } else { tokens * 2 / 5 };
            Count::within(tokens, slack)
        }
        None => {
            let tokens = of_size(rule, UNKNOWN);
            Count::within(tokens, tokens)
        }
    }
}

/// The patches of an image of 512 × 512 pixels.
const LOW_PATCHES: u32 = 256;

/// The longest side of an image that was reported with as many blocks as the guide says.
const SURE: u32 = 2_000;

/// Whether it is sure that an image is counted as its rule says.
fn fits(rule: ImageRule, size: Size) -> bool {
    match rule {
        ImageRule::Blocks {
            side,
            longest,
            most,
        } => {
            let blocks = |pixels: u32| u64::from(pixels.div_ceil(side.max(1)));
            size.width.max(size.height) <= longest.min(SURE)
                && blocks(size.width) * blocks(size.height) <= most.into()
        }
        _ => true,
    }
}

/// The blocks of an image, made smaller until its longer side and their number are small enough.
fn blocks(size: Size, side: u32, longest: u32, most: u32) -> u64 {
    let (longer, shorter) = (size.width.max(size.height), size.width.min(size.height));
    let side = u64::from(side.max(1));
    let at = |long: u64| {
        let (all, short) = (u64::from(longer), u64::from(shorter));
        // To the nearest pixel, and at least one.
        let short = ((short * long * 2 + all) / (2 * all)).max(1);
        long.div_ceil(side) * short.div_ceil(side)
    };
    let (mut fits, mut too_long) = (1, u64::from(longer.min(longest)) + 1);
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        if at(middle) <= most.into() {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    at(fits)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are positive, and made small enough before"
)]
fn of_size(rule: ImageRule, size: Size) -> u64 {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let (longer, shorter) = (width.max(height), width.min(height));
    match rule {
        ImageRule::Tiles { base, tile } => {
            let fit = (2_048.0 / longer).min(1.0);
            let scale = fit * (768.0 / (shorter * fit)).min(1.0);
            // An image scaled to a whole number of tiles must not get another one by rounding.
            let across = |side: f64| ((side * scale).round() / 512.0).ceil().max(1.0) as u64;
            u64::from(base) + u64::from(tile) * across(width) * across(height)
        }
        ImageRule::Patches { percent, most, .. } => {
            let patches = |scale: f64| {
                let across = |side: f64| (side * scale / 32.0).ceil().max(1.0);
                across(width) * across(height)
            };
            let most = f64::from(most);
            let mut count = patches(1.0);
            if count > most {
                // Made smaller to that area, then a little more so that one side is whole patches.
                let scale = (32.0 * 32.0 * most / (width * height)).sqrt();
                let whole = |side: f64| {
                    let across = side * scale / 32.0;
                    across.floor().max(1.0) / across
                };
                count = patches(scale * whole(width).min(whole(height)).min(1.0)).min(most);
            }
            (count * f64::from(percent) / 100.0).ceil() as u64
        }
        ImageRule::Blocks {
            side,
            longest,
            most,
        } => blocks(size, side, longest, most),
        ImageRule::Crops { tile } => {
            if longer <= 384.0 {
                return tile.into();
            }
            let unit = (shorter / 1.5).floor().clamp(256.0, 768.0);
            let across = |side: f64| (side / unit).ceil() as u64;
            u64::from(tile) * across(width) * across(height)
        }
        ImageRule::Fixed { tokens } => tokens.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: ImageRule, width: u32, height: u32) -> u64 {
        of_size(rule, Size { width, height })
    }

    /// The examples of OpenAI's guide.
    #[test]
    fn tiles() {
        let rule = ImageRule::Tiles {
            base: 85,
            tile: 170,
        };
        assert_eq!(of(rule, 1_024, 1_024), 765);
        assert_eq!(of(rule, 2_048, 4_096), 1_105);
        assert_eq!(of(rule, 512, 512), 255);
        assert_eq!(of(rule, 1, 1), 255);
        assert_eq!(of(rule, u32::MAX, 1), 85 + 4 * 170);
    }

    /// The examples of OpenAI's guide.
    #[test]
    fn patches() {
        let of_model = |percent, most| ImageRule::Patches {
            percent,
            most,
            high: most,
        };
        let rule = of_model(100, 1_536);
        assert_eq!(of(rule, 1_024, 1_024), 1_024);
        assert_eq!(of(rule, 1_800, 2_400), 1_452);
        assert_eq!(of(of_model(162, 1_536), 1_024, 1_024), 1_659);
        assert!(of(rule, u32::MAX, u32::MAX) <= 1_536);
    }

    /// What OpenAI's API reported of images of these sizes for GPT-6 and GPT-5.5, `auto` being original
    /// detail (<https://huggingface.co/datasets/JOHNISKING/image-token-cost>, read in 2026-11).
    #[test]
    fn patches_as_reported() {
        let of_model = |most| ImageRule::Patches {
            percent: 120,
            most,
            high: 2_500,
        };
        for (width, height, gpt_6, gpt_55) in [
            (256, 256, 77, 77),
            (512, 512, 308, 308),
            (768, 768, 692, 692),
            (1_024, 1_024, 1_229, 1_229),
            (1_280, 720, 1_104, 1_104),
            (1_920, 1_080, 2_448, 2_448),
            (2_560, 1_440, 4_320, 4_320),
            (3_840, 2_160, 9_792, 9_792),
            (4_032, 3_024, 14_364, 11_868),
        ] {
            assert_eq!(of(of_model(30_000), width, height), gpt_6, "{width}");
            assert_eq!(of(of_model(10_000), width, height), gpt_55, "{width}");
        }
    }

    const STANDARD: ImageRule = ImageRule::Blocks {
        side: 28,
        longest: 1_568,
        most: 1_568,
    };
    const HIGH: ImageRule = ImageRule::Blocks {
        side: 28,
        longest: 2_576,
        most: 4_784,
    };

    /// The examples of Anthropic's guide, and its limits.
    #[test]
    fn blocks_of_pixels() {
        assert_eq!(of(STANDARD, 200, 200), 64);
        assert_eq!(of(STANDARD, 1_000, 1_000), 1_296);
        assert_eq!(of(STANDARD, 3_840, 2_160), 1_560);
        assert_eq!(of(HIGH, 3_840, 2_160), 4_784);
        // 924 × 1,307 and 2,212 × 1,659.
        assert_eq!(of(STANDARD, 1_075, 1_520), 33 * 47);
        assert_eq!(of(HIGH, 1_075, 1_520), 39 * 55);
        assert_eq!(of(HIGH, 4_032, 3_024), 79 * 60);
        assert_eq!(of(HIGH, 1, 1), 1);
        assert_eq!(of(HIGH, u32::MAX, 1), 92);
        assert!(of(HIGH, u32::MAX, u32::MAX) <= 4_784);
    }

    /// What Anthropic's API reported of images of these sizes for Claude 4.5 and 5.5, without the 65 and 77
    /// tokens of the text beside them (the same measurements).
    #[test]
    fn blocks_as_reported() {
        for (width, height, claude_45, claude_55) in [
            (256, 256, 165, 177),
            (512, 512, 426, 438),
            (768, 768, 849, 861),
            (1_024, 1_024, 1_434, 1_446),
            (1_280, 720, 1_261, 1_273),
            (1_920, 1_080, 1_625, 2_768),
        ] {
            assert_eq!(of(STANDARD, width, height), claude_45 - 65, "{width}");
            assert_eq!(of(HIGH, width, height), claude_55 - 77, "{width}");
        }
        // Larger ones were made smaller than the guide says, and the count says that it may be so.
        for (width, height, claude_45, claude_55) in [
            (2_560, 1_440, 1_657, 3_069),
            (3_840, 2_160, 1_657, 3_069),
            (4_032, 3_024, 1_661, 4_005),
        ] {
            for (rule, reported) in [(STANDARD, claude_45 - 65), (HIGH, claude_55 - 77)] {
                let url = crate::image::tests::png(width, height);
                let image = donjon_core::Part::image_url(url)
                    .image_url
                    .expect("an image");
                let count = tokens(rule, &image);
                let bounds = count.least()..=count.most();
                assert!(
                    bounds.contains(&reported),
                    "{width}: {count}, not {reported}"
                );
            }
        }
    }

    /// The example of Google's guide.
    #[test]
    fn crops() {
        let rule = ImageRule::Crops { tile: 258 };
        assert_eq!(of(rule, 384, 384), 258);
        assert_eq!(of(rule, 960, 540), 6 * 258);
    }

    #[test]
    fn an_image_at_an_address_is_an_estimate() {
        let rule = ImageRule::Tiles {
            base: 85,
            tile: 170,
        };
        let image = |url: &str, detail: Option<&str>| {
            let part = donjon_core::Part::image_url(url);
            let mut image = part.image_url.expect("an image");
            image.detail = detail.map(Into::into);
            tokens(rule, &image)
        };
        let png = crate::image::tests::png(512, 512);
        assert_eq!(image(&png, None), Count::Exact(255));
        assert_eq!(image(&png, Some("low")), Count::Exact(85));
        let large = crate::image::tests::png(4_032, 3_024);
        let image_of = |detail: Option<&str>| {
            let mut image = donjon_core::Part::image_url(&*large)
                .image_url
                .expect("an image");
            image.detail = detail.map(Into::into);
            let patches = ImageRule::Patches {
                percent: 120,
                most: 30_000,
                high: 2_500,
            };
            tokens(patches, &image)
        };
        assert_eq!(image_of(None), Count::Exact(14_364));
        // Reported: 2,942, of which some are of the text.
        assert!((2_850..=2_942).contains(&image_of(Some("high")).tokens()));
        assert!(image_of(Some("low")).most() <= 2 * 308);
        assert_eq!(
            image("https://example.com/a.png", None),
            Count::within(765, 765)
        );
    }
}
