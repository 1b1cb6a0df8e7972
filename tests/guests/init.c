// SPDX-License-Identifier: GPL-2.0
/*
 * The only program of a test guest. It is built against the kernel's own nolibc, so
 * that no C library for the guest's CPU is needed. It loads a balloon driver, prints a
 * line of numbers whenever it has done something, and once a second, and obeys commands
 * on the console. balloon_plugin.boot.guest describes its language.
 */
#ifndef O_NONBLOCK
#define O_NONBLOCK 04000
#endif

#define MAX_BLOCKS 64
#define STRIDE (4096 / sizeof(unsigned long))	/* one word in every 4 KiB */

static struct block {
	unsigned long *words, size;
} blocks[MAX_BLOCKS];
static int block_count;
static int interval = 1000;
static char text[65536];	/* what was read last */
static char cmdline[4096];

/* --- the console --- */

/*
 * Knows %s, %d (a long) and %x (an unsigned long). A line leaves in one write, so that
 * the kernel's own messages seldom cut it.
 */
static void say(const char *format, ...)
{
	static char line[4096];
	static int length;
	char number[24];
	va_list arguments;

	va_start(arguments, format);
	for (; *format; format++) {
		const char *part = number;

		if (*format != '%') {
			number[0] = *format;
			number[1] = 0;
		} else if (*++format == 's') {
			part = va_arg(arguments, const char *);
		} else if (*format == 'd') {
			ltoa_r(va_arg(arguments, long), number);
		} else {
			utoh_r(va_arg(arguments, unsigned long), number);
		}
		while (*part && length < (int)sizeof(line))
			line[length++] = *part++;
		if (length && line[length - 1] == '\n') {
			write(1, line, length);
			length = 0;
		}
	}
	va_end(arguments);
}

/* Returns -1 if nothing is to be had; waits up to the interval. */
static int read_key(void)
{
	struct pollfd console = { .fd = 0, .events = POLLIN };
	char key;

	if (poll(&console, 1, interval) <= 0)
		return -1;
	if (console.revents & POLLIN && read(0, &key, 1) == 1)
		return key;
	msleep(interval);	/* nobody is at the console */
	return -1;
}

/* --- files and words --- */

/* Reads a small file into text, without the white space at its end. */
static int read_file(const char *path)
{
	int fd = open(path, O_RDONLY), length = 0, got;

	text[0] = 0;
	if (fd < 0)
		return -1;
	while (length < (int)sizeof(text) - 1 &&
	       (got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	close(fd);
	while (length && (text[length - 1] == '\n' || text[length - 1] == ' '))
		length--;
	text[length] = 0;
	return length;
}

static int begins_with(const char *string, const char *prefix)
{
	return !strncmp(string, prefix, strlen(prefix));
}

/* The number on the line of text that begins with the key; -1 if there is none. */
static long number_of(const char *key)
{
	const char *line = text;

	while (line && !begins_with(line, key)) {
		line = strchr(line, '\n');
		line += line ? 1 : 0;
	}
	if (!line)
		return -1;
	line += strlen(key);
	while (*line == ' ' || *line == ':')
		line++;
	return atol(line);
}

/* The value of the first key= on the kernel's command line. */
static int argument(const char *key, char *value, int size)
{
	const char *word = cmdline;
	int length = strlen(key), i;

	while (*word && !(begins_with(word, key) && word[length] == '=')) {
		while (*word && *word != ' ')
			word++;
		while (*word == ' ')
			word++;
	}
	if (!*word)
		return 0;
	word += length + 1;
	for (i = 0; word[i] && word[i] != ' ' && i < size - 1; i++)
		value[i] = word[i];
	value[i] = 0;
	return 1;
}

/* Cuts the first word off a command. */
static char *next_word(char **rest)
{
	char *word;

	while (**rest == ' ')
		(*rest)++;
	word = *rest;
	while (**rest && **rest != ' ')
		(*rest)++;
	if (**rest)
		*(*rest)++ = 0;
	while (**rest == ' ')
		(*rest)++;
	return word;
}

/* --- memory in use: word 0 of every 4 KiB holds its own address, inverted --- */

static void alloc(long mebibytes)
{
	unsigned long size = mebibytes << 20, i, *words;

	words = mebibytes <= 0 || block_count == MAX_BLOCKS ? MAP_FAILED :
		mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (words == MAP_FAILED) {
		say("GUEST alloc %d failed\n", mebibytes);
		return;
	}
	for (i = 0; i < size / sizeof(*words); i += STRIDE)
		words[i] = ~(unsigned long)&words[i];
	blocks[block_count].words = words;
	blocks[block_count++].size = size;
	say("GUEST alloc %d ok\n", mebibytes);
}

static void free_all(void)
{
	while (block_count) {
		block_count--;
		munmap(blocks[block_count].words, blocks[block_count].size);
	}
	say("GUEST free ok\n");
}

static void say_check(void)
{
	unsigned long i, kept = 0, lost = 0;
	int b;

	for (b = 0; b < block_count; b++) {
		volatile unsigned long *words = blocks[b].words;

		for (i = 0; i < blocks[b].size / sizeof(*words); i += STRIDE)
			words[i] == ~(unsigned long)&words[i] ? kept++ : lost++;
	}
	say(" check=%d/%d", kept, lost);
}

/* --- what is said --- */

static const char *uptime(void)
{
	static char seconds[32];
	int i;

	read_file("/proc/uptime");
	for (i = 0; i < 31 && text[i] && text[i] != ' '; i++)
		seconds[i] = text[i];
	seconds[i] = 0;
	return seconds;
}

static void say_numbers(void)
{
	const char *up = uptime();
	long total, unused, available;

	read_file("/proc/meminfo");
	total = number_of("MemTotal");
	unused = number_of("MemFree");
	available = number_of("MemAvailable");
	read_file("/proc/vmstat");
	say("GUEST up=%s MemTotal=%d MemFree=%d MemAvailable=%d infl=%d/%d", up, total,
	    unused, available, number_of("balloon_inflate"), number_of("balloon_deflate"));
	if (block_count)
		say_check();
	say("\n");
}

static void say_device(void)
{
	static char driver[64];
	unsigned long features = 0;
	int i, length;

	if (read_file("/sys/bus/virtio/devices/virtio0/features") < 0) {
		say("GUEST virtio0 none\n");
		return;
	}
	for (i = 0; i < 64 && text[i]; i++)
		features |= (unsigned long)(text[i] == '1') << i;
	strlcpy(driver, "-", sizeof(driver));
	length = my_syscall4(__NR_readlinkat, AT_FDCWD,
			     "/sys/bus/virtio/devices/virtio0/driver", text,
			     sizeof(text) - 1);
	if (length > 0) {
		text[length] = 0;
		strlcpy(driver, strrchr(text, '/') + 1, sizeof(driver));
	}
	read_file("/sys/bus/virtio/devices/virtio0/status");
	say("GUEST virtio0 driver=%s status=%s features=0x%x\n", driver, text, features);
}

/* --- commands --- */

static void insmod(const char *module, const char *parameters)
{
	static char path[96];
	long result = -2;
	int fd;

	strlcpy(path, "/", sizeof(path));
	strlcat(path, module, sizeof(path));
	strlcat(path, ".ko", sizeof(path));
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		result = my_syscall3(__NR_finit_module, fd, (long)parameters, 0);
		close(fd);
	}
	say("GUEST insmod %s \"%s\" -> %d\n", module, parameters, result);
	say_device();
}

static void rmmod(const char *module)
{
	long result = my_syscall2(__NR_delete_module, (long)module, O_NONBLOCK);

	say("GUEST rmmod %s -> %d\n", module, result);
	say_device();
}

static void write_file(const char *path, const char *data)
{
	int fd = open(path, O_WRONLY);
	long result = fd < 0 ? -1 : write(fd, data, strlen(data));

	if (fd >= 0)
		close(fd);
	say("GUEST write %s -> %d\n", path, result);
}

static void obey(char *rest)
{
	const char *command = next_word(&rest), *first = next_word(&rest);

	if (!strcmp(command, "insmod")) {
		insmod(first, rest);
	} else if (!strcmp(command, "rmmod")) {
		rmmod(first);
	} else if (!strcmp(command, "alloc")) {
		alloc(atol(first));
	} else if (!strcmp(command, "free")) {
		free_all();
	} else if (!strcmp(command, "device")) {
		say_device();
	} else if (!strcmp(command, "read")) {
		if (read_file(first) < 0)
			say("GUEST read %s failed\n", first);
		else
			say("GUEST read %s: %s\n", first, text);
	} else if (!strcmp(command, "write")) {
		write_file(first, rest);
	} else if (!strcmp(command, "interval")) {
		interval = atol(first);
		say("GUEST interval %d ok\n", (long)interval);
	} else if (!strcmp(command, "reboot")) {
		say("GUEST reboot\n");
		reboot(LINUX_REBOOT_CMD_RESTART);
	} else if (!strcmp(command, "poweroff")) {
		say("GUEST poweroff\n");
		reboot(LINUX_REBOOT_CMD_POWER_OFF);
	} else if (*command) {
		say("GUEST unknown command %s\n", command);
	}
}

static void start(void)
{
	static char driver[64] = "virtio_balloon", parameters[256], number[32];
	char *comma;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, 0);
	mount("sys", "/sys", "sysfs", 0, 0);
	read_file("/proc/version");
	say("GUEST %s\n", text);
	read_file("/proc/cmdline");
	strlcpy(cmdline, text, sizeof(cmdline));
	say("GUEST cmdline %s\n", cmdline);
	say("GUEST pagesize=%d endian=%s\n", (long)getpagesize(),
	    __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? "big" : "little");
	if (argument("interval", number, sizeof(number)))
		interval = atol(number);
	if (argument("alloc", number, sizeof(number)))
		alloc(atol(number));
	argument("drv", driver, sizeof(driver));
	argument("drvargs", parameters, sizeof(parameters));
	while ((comma = strchr(parameters, ',')))
		*comma = ' ';
	say_device();
	if (strcmp(driver, "none"))
		insmod(driver, parameters);
	say("GUEST ready up=%s\n", uptime());
}

int main(void)
{
	static char line[512];
	int length, key;

	start();
	for (;;) {
		say_numbers();
		key = read_key();
		if (key < 0)
			continue;
		for (length = 0; key >= 0 && key != '\n' && key != '\r'; key = read_key())
			if (length < (int)sizeof(line) - 1)
				line[length++] = key;
		line[length] = 0;
		obey(line);
	}
}
