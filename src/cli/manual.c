#include "manual.h"

#include <ctype.h>
#include <string.h>

/* ---- man -------------------------------------------------------------------------------- */

/* Text for roff: no line begins with a control character, and hyphens stay hyphens. */
static void put_roff(const char *text, FILE *out)
{
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

static void put_upper(const char *text, FILE *out)
{
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), out);
}

static void put_man_options(const struct program *program, unsigned commands, FILE *out)
{
    for (size_t i = 0; i < program->n_options; i++) {
        const struct option *option = &program->options[i];
        if (!(option->commands & commands))
            continue;
        fputs(".TP\n.B ", out);
        for (const char *at = option->names; *at; at++) {
            const char one[] = {*at, 0};
            if (*at == ' ')
                fputs(", ", out);
            else
                put_roff(one, out);
        }
        if (option->value) {
            fputs(" \\fI", out);
            put_roff(option->value, out);
            fputs("\\fR", out);
        }
        fputs("\n", out);
        put_roff(option->help, out);
        fputs("\n", out);
    }
}

static void print_man(const struct program *program, FILE *out)
{
    fputs(".TH ", out);
    put_upper(program->name, out);
    fprintf(out, " 1 \"\" \"mobilevlm %s\"\n.SH NAME\n%s \\- ", MVLM_VERSION, program->name);
    put_roff(program->about, out);
    fputs("\n.SH SYNOPSIS\n", out);
    for (size_t i = 0; i < program->n_commands; i++) {
        const struct command *command = &program->commands[i];
        fprintf(out, ".B %s", program->name);
        if (program->n_commands > 1)
            fprintf(out, " %s", command->name);
        fputs("\n", out);
        put_roff(command->usage, out);
        fputs("\n.br\n", out);
    }
    fprintf(out, ".SH %s\n", program->n_commands > 1 ? "COMMANDS" : "OPTIONS");
    for (size_t i = 0; i < program->n_commands; i++) {
        const struct command *command = &program->commands[i];
        if (program->n_commands > 1) {
            fprintf(out, ".SS %s\n", command->name);
            put_roff(command->summary, out);
            fputs(".\n", out);
        }
        put_man_options(program, command->bit, out);
        fputs(".PP\nExample:\n.PP\n.nf\n.RS\n", out);
        put_roff(command->example, out);
        fputs("\n.RE\n.fi\n", out);
    }
    char variable[64];
    const char *longest = strstr(program->options[0].names, "--");
    variable_name(program, &program->options[0], variable);
    fprintf(out, ".SH ENVIRONMENT\nEvery option can be given as a variable, %s for ", variable);
    for (size_t i = 0, n = strcspn(longest, " "); i < n; i++)
        fprintf(out, longest[i] == '-' ? "\\-" : "%c", longest[i]);
    fputs("; the command line wins.\n.SH EXIT STATUS\n", out);
    put_roff(program->notes, out);
}

/* ---- Completions ------------------------------------------------------------------------ */

/* The option's spellings, `between` one and the next. */
static void put_spellings(const struct option *option, const char *between, FILE *out)
{
    for (const char *at = option->names; *at;) {
        const size_t n = strcspn(at, " ");
        fprintf(out, "%.*s%s", (int)n, at, at[n] ? between : "");
        at += n + (at[n] == ' ');
    }
}

static void put_choices(const struct option *option, FILE *out)
{
    for (size_t k = 0; option->choices[k]; k++)
        fprintf(out, "%s%s", k ? " " : "", option->choices[k]);
}

static bool takes_file(const struct option *option)
{
    return option->value && (!strcmp(option->value, "FILE") || !strcmp(option->value, "FOLDER"));
}

/* A command's options, and what may follow the word `before`. */
static void put_bash_command(const struct program *program, unsigned command, FILE *out)
{
    fprintf(out, "        options='");
    for (size_t i = 0; i < program->n_options; i++)
        if (program->options[i].commands & command) {
            put_spellings(&program->options[i], " ", out);
            fprintf(out, " ");
        }
    fprintf(out, "'\n        case $before in\n");
    for (size_t i = 0; i < program->n_options; i++) {
        const struct option *option = &program->options[i];
        if (!(option->commands & command) || !option->choices)
            continue;
        fprintf(out, "            ");
        put_spellings(option, "|", out);
        fprintf(out, ") values='");
        put_choices(option, out);
        fprintf(out, "' ;;\n");
    }
    fprintf(out, "        esac\n");
}

static void print_bash(const struct program *program, FILE *out)
{
    char function[64];
    snprintf(function, sizeof function, "_%s", program->name);
    for (char *at = function; *at; at++)
        if (*at == '-')
            *at = '_';
    fprintf(out,
            "# bash completion for %s, made from its option table\n%s() {\n"
            "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
            "    local options='' values=''\n",
            program->name, function);
    fprintf(out, "    case ${COMP_WORDS[1]} in\n");
    for (size_t c = program->n_commands; c-- > 0;) {
        fprintf(out, "    %s)\n", c ? program->commands[c].name : "*");
        put_bash_command(program, program->commands[c].bit, out);
        fprintf(out, "        ;;\n");
    }
    fprintf(out, "    esac\n    if [[ -n $values ]]; then\n"
                 "        COMPREPLY=($(compgen -W \"$values\" -- \"$word\"))\n"
                 "    elif [[ $word == -* ]]; then\n"
                 "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n");
    if (program->n_commands > 1) {
        fprintf(out, "    elif [[ $COMP_CWORD == 1 ]]; then\n        COMPREPLY=($(compgen -W \"");
        for (size_t c = 0; c < program->n_commands; c++)
            fprintf(out, "%s%s", c ? " " : "", program->commands[c].name);
        fprintf(out, "\" -- \"$word\"))\n");
    }
    fprintf(out, "    fi\n}\ncomplete -o default -F %s %s\n", function, program->name);
}

/* A description between brackets and quotes. */
static void put_zsh(const char *text, FILE *out)
{
    for (; *text; text++) {
        if (strchr("[]:\\", *text))
            fputc('\\', out);
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fputc(*text, out);
    }
}

static void put_zsh_option(const struct option *option, FILE *out)
{
    for (const char *at = option->names; *at;) {
        const size_t n = strcspn(at, " ");
        fprintf(out, "            '*%.*s[", (int)n, at);
        put_zsh(option->help, out);
        fprintf(out, "]");
        if (option->value) {
            fprintf(out, ":");
            put_zsh(option->value, out);
            fprintf(out, ":");
            if (option->choices) {
                fprintf(out, "(");
                put_choices(option, out);
                fprintf(out, ")");
            } else if (takes_file(option))
                fprintf(out, "_files");
        }
        fprintf(out, "' \\\n");
        at += n + (at[n] == ' ');
    }
}

static void print_zsh(const struct program *program, FILE *out)
{
    fprintf(out, "#compdef %s\n# made from its option table\n", program->name);
    if (program->n_commands > 1) {
        fprintf(out,
                "if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n    local -a names=(\n");
        for (size_t c = 0; c < program->n_commands; c++) {
            fprintf(out, "        '%s:", program->commands[c].name);
            put_zsh(program->commands[c].summary, out);
            fprintf(out, "'\n");
        }
        fprintf(out, "    )\n    _describe command names\n    return\nfi\n");
    }
    fprintf(out, "case $words[2] in\n");
    for (size_t c = program->n_commands; c-- > 0;) {
        const struct command *command = &program->commands[c];
        fprintf(out, "    %s)\n        _arguments \\\n", c ? command->name : "*");
        for (size_t i = 0; i < program->n_options; i++)
            if (program->options[i].commands & command->bit)
                put_zsh_option(&program->options[i], out);
        fprintf(out, "            '*:file:_files' ;;\n");
    }
    fprintf(out, "esac\n");
}

bool print_manual(const struct program *program, const char *kind, FILE *out)
{
    static const struct {
        const char *kind;
        void (*print)(const struct program *, FILE *);
    } kinds[] = {{"man", print_man}, {"bash", print_bash}, {"zsh", print_zsh}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].kind, kind) == 0) {
            kinds[i].print(program, out);
            return true;
        }
    return false;
}
