/*
 * Prints linux_layouts.json: sizes, offsets and numbers as the Linux headers have them.
 * The result is checked in, so that nobody needs a compiler to test. To renew it, name
 * the headers:
 *
 *     cc tests/data/linux_layouts.c
 *     ./a.out "linux-libc-dev 6.1.187-1 (Debian)" > tests/data/linux_layouts.json
 *
 * Headers before Linux 6.12 end at statistic 9; spec_layouts.json has the others.
 */
#include <stddef.h>
#include <stdio.h>

#include <linux/vhost_types.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

static const char *separator;

static void entry(const char *name, size_t value)
{
	printf("%s\n      \"%s\": %zu", separator, name, value);
	separator = ",";
}

static void open_struct(const char *name, size_t size)
{
	printf("%s\n    \"%s\": {\"size\": %zu, \"offsets\": {", separator, name, size);
	separator = "";
}

static void close_struct(void)
{
	printf("\n    }}");
	separator = ",";
}

#define STRUCT(name) open_struct(#name, sizeof(struct name))
#define FIELD(name, field) entry(#field, offsetof(struct name, field))
#define NUMBER(name) entry(#name, name)

static void structs(void)
{
	STRUCT(virtio_balloon_config);
	FIELD(virtio_balloon_config, num_pages);
	FIELD(virtio_balloon_config, actual);
	FIELD(virtio_balloon_config, free_page_hint_cmd_id);
	FIELD(virtio_balloon_config, poison_val);
	close_struct();

	STRUCT(virtio_balloon_stat);
	FIELD(virtio_balloon_stat, tag);
	FIELD(virtio_balloon_stat, val);
	close_struct();

	STRUCT(vring_desc);
	FIELD(vring_desc, addr);
	FIELD(vring_desc, len);
	FIELD(vring_desc, flags);
	FIELD(vring_desc, next);
	close_struct();

	/* The arrays at the end of the rings count nothing in sizeof. */
	STRUCT(vring_avail);
	FIELD(vring_avail, flags);
	FIELD(vring_avail, idx);
	close_struct();

	STRUCT(vring_used_elem);
	FIELD(vring_used_elem, id);
	FIELD(vring_used_elem, len);
	close_struct();

	STRUCT(vring_used);
	FIELD(vring_used, flags);
	FIELD(vring_used, idx);
	close_struct();

	STRUCT(vring_packed_desc);
	FIELD(vring_packed_desc, addr);
	FIELD(vring_packed_desc, len);
	FIELD(vring_packed_desc, id);
	FIELD(vring_packed_desc, flags);
	close_struct();

	STRUCT(vring_packed_desc_event);
	FIELD(vring_packed_desc_event, off_wrap);
	FIELD(vring_packed_desc_event, flags);
	close_struct();

	STRUCT(vhost_vring_state);
	FIELD(vhost_vring_state, index);
	FIELD(vhost_vring_state, num);
	close_struct();

	STRUCT(vhost_vring_addr);
	FIELD(vhost_vring_addr, index);
	FIELD(vhost_vring_addr, flags);
	FIELD(vhost_vring_addr, desc_user_addr);
	FIELD(vhost_vring_addr, used_user_addr);
	FIELD(vhost_vring_addr, avail_user_addr);
	FIELD(vhost_vring_addr, log_guest_addr);
	close_struct();
}

static void numbers(void)
{
	NUMBER(VIRTIO_ID_BALLOON);
	NUMBER(VIRTIO_BALLOON_PFN_SHIFT);

	NUMBER(VIRTIO_BALLOON_F_MUST_TELL_HOST);
	NUMBER(VIRTIO_BALLOON_F_STATS_VQ);
	NUMBER(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	NUMBER(VIRTIO_BALLOON_F_FREE_PAGE_HINT);
	NUMBER(VIRTIO_BALLOON_F_PAGE_POISON);
	NUMBER(VIRTIO_BALLOON_F_REPORTING);
	NUMBER(VIRTIO_F_NOTIFY_ON_EMPTY);
	NUMBER(VIRTIO_F_ANY_LAYOUT);
	NUMBER(VIRTIO_RING_F_INDIRECT_DESC);
	NUMBER(VIRTIO_RING_F_EVENT_IDX);
	NUMBER(VIRTIO_F_VERSION_1);
	NUMBER(VIRTIO_F_ACCESS_PLATFORM);
	NUMBER(VIRTIO_F_RING_PACKED);

	NUMBER(VIRTIO_CONFIG_S_ACKNOWLEDGE);
	NUMBER(VIRTIO_CONFIG_S_DRIVER);
	NUMBER(VIRTIO_CONFIG_S_DRIVER_OK);
	NUMBER(VIRTIO_CONFIG_S_FEATURES_OK);
	NUMBER(VIRTIO_CONFIG_S_NEEDS_RESET);
	NUMBER(VIRTIO_CONFIG_S_FAILED);

	NUMBER(VIRTIO_BALLOON_S_SWAP_IN);
	NUMBER(VIRTIO_BALLOON_S_SWAP_OUT);
	NUMBER(VIRTIO_BALLOON_S_MAJFLT);
	NUMBER(VIRTIO_BALLOON_S_MINFLT);
	NUMBER(VIRTIO_BALLOON_S_MEMFREE);
	NUMBER(VIRTIO_BALLOON_S_MEMTOT);
	NUMBER(VIRTIO_BALLOON_S_AVAIL);
	NUMBER(VIRTIO_BALLOON_S_CACHES);
	NUMBER(VIRTIO_BALLOON_S_HTLB_PGALLOC);
	NUMBER(VIRTIO_BALLOON_S_HTLB_PGFAIL);
#ifdef VIRTIO_BALLOON_S_OOM_KILL
	NUMBER(VIRTIO_BALLOON_S_OOM_KILL);
	NUMBER(VIRTIO_BALLOON_S_ALLOC_STALL);
	NUMBER(VIRTIO_BALLOON_S_ASYNC_SCAN);
	NUMBER(VIRTIO_BALLOON_S_DIRECT_SCAN);
	NUMBER(VIRTIO_BALLOON_S_ASYNC_RECLAIM);
	NUMBER(VIRTIO_BALLOON_S_DIRECT_RECLAIM);
#endif

	NUMBER(VRING_DESC_F_NEXT);
	NUMBER(VRING_DESC_F_WRITE);
	NUMBER(VRING_DESC_F_INDIRECT);
	NUMBER(VRING_USED_F_NO_NOTIFY);
	NUMBER(VRING_AVAIL_F_NO_INTERRUPT);
	NUMBER(VRING_PACKED_DESC_F_AVAIL);
	NUMBER(VRING_PACKED_DESC_F_USED);
	NUMBER(VRING_PACKED_EVENT_FLAG_ENABLE);
	NUMBER(VRING_PACKED_EVENT_FLAG_DISABLE);
	NUMBER(VRING_PACKED_EVENT_FLAG_DESC);
	NUMBER(VRING_PACKED_EVENT_F_WRAP_CTR);
}

int main(int argc, char **argv)
{
	printf("{\n  \"source\": \"%s\",\n  \"structs\": {", argc > 1 ? argv[1] : "?");
	separator = "";
	structs();
	printf("\n  },\n  \"numbers\": {");
	separator = "";
	numbers();
	printf("\n  }\n}\n");
	return 0;
}
