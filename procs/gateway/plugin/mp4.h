/* plugin/mp4.h - the table between the gateway and longlived-mp4.so.
 *
 * The plugin holds all that needs libav, so that programs start on machines without it. It exports
 * one symbol, a table; it calls nothing of the gateway and writes no file: it turns I420 frames
 * into bytes in its own memory. Errors come back as a code and a sentence in `why`.
 */
#ifndef GATEWAY_PLUGIN_MP4_H
#define GATEWAY_PLUGIN_MP4_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define MP4_PLUGIN_FILE "longlived-mp4.so"
#define MP4_PLUGIN_SYMBOL "longlived_mp4"
#define MP4_PLUGIN_VERSION 1 /* changes with anything in this file */
#define MP4_WHY_BYTES 256

struct mp4_enc; /* one encoder and one muxer */

struct mp4_plugin {
    uint32_t version; /* MP4_PLUGIN_VERSION; first, so that any version can be read */

    /* The name of the encoder that open would take, NULL if libav has none for H.264. */
    const char *(*encoder)(void);

    /* Opens encoder and muxer. header: ftyp and moov, the same bytes for the same conf and libav;
     * the plugin's, valid until close. ERR_NONE no encoder, ERR_NOMEM, ERR_CONFIG refused by libav.
     */
    err_t (*open)(struct mp4_enc **enc, int32_t width_px, int32_t height_px, int32_t fps,
                  const uint8_t **header, size_t *header_bytes, char why[MP4_WHY_BYTES]);

    /* The next block is fragment number n_fragments (from 0) and begins with frame n_frames. Only
     * before the first frame. */
    void (*resume)(struct mp4_enc *enc, int64_t n_frames, int64_t n_fragments);

    /* Encodes one frame; the first after open or cut is an IDR. i420: as yuv_from_rgb makes it.
     * ERR_NOMEM, ERR_BUG: the encoder refused; close it. */
    err_t (*frame)(struct mp4_enc *enc, const uint8_t *i420, char why[MP4_WHY_BYTES]);

    /* Ends the block: bytes is one moof and its mdat, the plugin's, valid until the next frame.
     * Errors as of frame. */
    err_t (*cut)(struct mp4_enc *enc, const uint8_t **bytes, size_t *n_bytes,
                 char why[MP4_WHY_BYTES]);

    void (*close)(struct mp4_enc **enc);
};

extern const struct mp4_plugin longlived_mp4;

#endif
