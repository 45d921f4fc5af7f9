/* yuv.h - RGB24 to I420, the one colour conversion of every output.
 *
 * BT.601 matrix, limited range (Y 16..235, Cb and Cr 16..240), chroma sited in the middle of its
 * four pixels. The y4m header and the H.264 tags say the same. Limited, not full: every player
 * takes limited range right, and several ignore the tag that says full.
 */
#ifndef GATEWAY_YUV_H
#define GATEWAY_YUV_H

#include <stddef.h>
#include <stdint.h>

/* The bytes of one I420 frame: width_px * height_px * 3 / 2. Both must be even and > 0. */
size_t yuv_bytes(int32_t width_px, int32_t height_px);

/* yuv_from_rgb - Y, then Cb, then Cr, without padding
 *
 *   i420   out; [Y, X], [Y/2, X/2], [Y/2, X/2]; yuv_bytes() bytes, may not alias rgb
 *   rgb    in;  [Y, X, 3]
 *
 * Integers only, rounded to nearest: the same bytes on every machine, at most 1 away from the
 * exact value. Source: ITU-R BT.601-7, 2.5.1 (luma weights 0.299, 0.587, 0.114) and 2.5.3 (219 and
 * 224 levels).
 */
void yuv_from_rgb(uint8_t *i420, const uint8_t *rgb, int32_t width_px, int32_t height_px);

#endif
