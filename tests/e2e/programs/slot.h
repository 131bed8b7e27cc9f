/* Calls a function of libc as librdmacm calls it: through the slot of that
 * library's relocation table, where masq answers. */
#ifndef SLOT_H
#define SLOT_H
#include <elf.h>
#include <link.h>
#include <string.h>

struct slot_search {
	const char *library, *symbol;
	void *found;
};

static int slot_in(struct dl_phdr_info *info, size_t size, void *data)
{
	struct slot_search *s = data;
	(void)size;
	if (!strstr(info->dlpi_name, s->library))
		return 0;
	const ElfW(Dyn) *dyn = NULL;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dyn = (void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;
	const ElfW(Rela) *plt = NULL;
	size_t len = 0;
	for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
		if (dyn->d_tag == DT_SYMTAB)
			symbols = (void *)dyn->d_un.d_ptr;
		else if (dyn->d_tag == DT_STRTAB)
			names = (void *)dyn->d_un.d_ptr;
		else if (dyn->d_tag == DT_JMPREL)
			plt = (void *)dyn->d_un.d_ptr;
		else if (dyn->d_tag == DT_PLTRELSZ)
			len = dyn->d_un.d_val / sizeof *plt;
	}
	for (size_t i = 0; plt && i < len; i++) {
		const ElfW(Sym) *symbol = symbols + ELF64_R_SYM(plt[i].r_info);
		if (!strcmp(names + symbol->st_name, s->symbol))
			s->found = *(void **)(info->dlpi_addr + plt[i].r_offset);
	}
	return s->found != NULL;
}

/* What `library` calls for `symbol`, or NULL. */
static inline void *slot_of(const char *library, const char *symbol)
{
	struct slot_search search = { library, symbol, NULL };
	dl_iterate_phdr(slot_in, &search);
	return search.found;
}
#endif
