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
    let low = image.detail.as_deref() == Some("low");
    if let (ImageRule::Tiles { base, .. }, true) = (rule, low) {
        return Count::Exact(base.into());
    }
    if let ImageRule::Fixed { tokens } = rule {
        return Count::within(tokens.into(), tokens.into());
    }
    match Size::of_url(&image.url) {
        Some(size) => Count::Exact(of_size(rule, size)),
        None => {
            let tokens = of_size(rule, UNKNOWN);
            Count::within(tokens, tokens)
        }
    }
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
        ImageRule::Patches { percent, most } => {
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
        ImageRule::Area {
            per_token,
            longest,
            most,
        } => {
            let scale = (f64::from(longest) / longer).min(1.0);
            let tokens = width * scale * height * scale / f64::from(per_token.max(1));
            (tokens.ceil() as u64).clamp(1, most.into())
        }
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
        let rule = ImageRule::Patches {
            percent: 100,
            most: 1_536,
        };
        assert_eq!(of(rule, 1_024, 1_024), 1_024);
        assert_eq!(of(rule, 1_800, 2_400), 1_452);
        let mini = ImageRule::Patches {
            percent: 162,
            most: 1_536,
        };
        assert_eq!(of(mini, 1_024, 1_024), 1_659);
        assert!(of(rule, u32::MAX, u32::MAX) <= 1_536);
    }

    /// The examples of Anthropic's guide, and its limits.
    #[test]
    fn area() {
        let rule = ImageRule::Area {
            per_token: 750,
            longest: 1_568,
            most: 1_600,
        };
        assert_eq!(of(rule, 200, 200), 54);
        assert_eq!(of(rule, 1_000, 1_000), 1_334);
        assert_eq!(of(rule, 4_000, 4_000), 1_600);
        assert_eq!(of(rule, 3_136, 100), 105);
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
        assert_eq!(
            image("https://example.com/a.png", None),
            Count::within(765, 765)
        );
    }
}
