/* Each stand-in against what it stands in for; exit status 0 if all agree. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "line %d: %s\n", __LINE__, #what);               \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

/* The shims, under names that leave glibc's alone. */
int shim_stat64(const char *, struct stat *);
int shim_lstat(const char *, struct stat *);
int shim_fstat(int, struct stat *);
ssize_t shim_preadv2(int, const struct iovec *, int, off_t, int);
int shim_pthread_atfork(void (*)(void), void (*)(void), void (*)(void));

struct object {
	unsigned long long flags;
	void *start, *end, *map, *eh_frame;
	unsigned long long reserved[7];
};
int shim_dl_find_object(void *, struct object *);

static void files(void)
{
	char dir[] = "/tmp/masq-shims-XXXXXX", link[64];
	struct stat a, b;

	CHECK(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/link", dir);
	CHECK(!symlink("/etc/passwd", link));
	CHECK(!shim_stat64(link, &a) && !stat(link, &b) && !memcmp(&a, &b, sizeof(a)));
	CHECK(S_ISREG(a.st_mode));
	CHECK(!shim_lstat(link, &a) && S_ISLNK(a.st_mode));
	CHECK(!shim_fstat(1, &a) && !fstat(1, &b) && a.st_ino == b.st_ino);
	CHECK(shim_stat64("/nonexistent", &a) == -1);
	unlink(link);
	rmdir(dir);
}

static void reads(void)
{
	int fd = memfd_create("shims", 0);
	char byte[2] = "", next = 0;
	struct iovec part = { byte, 1 };

	CHECK(fd >= 0 && write(fd, "abc", 3) == 3);
	CHECK(shim_preadv2(fd, &part, 1, 2, 0) == 1 && byte[0] == 'c');
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	/* -1 is the file's own position. */
	CHECK(shim_preadv2(fd, &part, 1, -1, 0) == 1 && byte[0] == 'a');
	CHECK(read(fd, &next, 1) == 1 && next == 'b');
	CHECK(shim_preadv2(fd, &part, 1, 0, ~0) == -1);
}

static int forked;

static void in_child(void)
{
	forked = 1;
}

static void forks(void)
{
	int status;
	pid_t child;

	CHECK(!shim_pthread_atfork(NULL, NULL, in_child));
	child = fork();
	if (child == 0)
		_exit(forked ? 0 : 1);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(!forked);
}

static void objects(void)
{
	struct object mine, libc;

	CHECK(!shim_dl_find_object((char *)objects + 1, &mine));
	CHECK((char *)mine.start <= (char *)objects && (char *)objects < (char *)mine.end);
	CHECK(!shim_dl_find_object((char *)puts, &libc));
	CHECK(mine.eh_frame && libc.eh_frame && mine.eh_frame != libc.eh_frame);
	CHECK(shim_dl_find_object(NULL, &mine) == -1);
	CHECK(shim_dl_find_object(&libc, &mine) == -1);
#ifdef HAVE_FIND_OBJECT
	int _dl_find_object(void *, struct object *);
	struct object theirs;

	CHECK(!shim_dl_find_object((char *)puts, &mine));
	CHECK(!_dl_find_object((char *)puts, &theirs));
	CHECK(mine.eh_frame == theirs.eh_frame);
#endif
}

int main(void)
{
	files();
	reads();
	forks();
	objects();
	return 0;
}
